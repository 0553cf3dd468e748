"""Lists the Python packages inside a virtual environment with their licences, for the package's copyright file.

bundled.py VENV
"""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions
from pathlib import Path


def licence(package: Distribution) -> str:
    """What a package says of its licence, in one line."""
    about = package.metadata
    said = about.get("License-Expression") or about.get("License") or ""
    classifiers = about.get_all("Classifier") or ()
    classified = [value.rpartition(" :: ")[2] for value in classifiers if value.startswith("License")]
    return said.splitlines()[0].strip() if said.strip() else ", ".join(classified) or "see its metadata"


def main() -> None:
    (folder,) = (Path(sys.argv[1]) / "lib").glob("python3*/site-packages")
    found = sorted(distributions(path=[str(folder)]), key=lambda package: package.metadata["Name"].lower())
    sys.stdout.writelines(
        f" {package.metadata['Name']} {package.version}: {licence(package)}\n"
        for package in found
        if package.metadata["Name"] != "gatewayd"
    )


if __name__ == "__main__":
    main()
