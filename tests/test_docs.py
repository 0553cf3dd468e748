"""The documents are true: what they name exists."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from gatewayd.cli import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gatewayd"
OTHERS = {"sys.setswitchinterval(0.0005)"}
"""Names that are not ours."""


def quoted(document: str) -> list[str]:
    """What stands in backticks in a document, code blocks left out."""
    text = re.sub(r"```.*?```", "", (ROOT / document).read_text(encoding="utf-8"), flags=re.DOTALL)
    return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", text)]


def words_of_the_code() -> set[str]:
    """Every name and every string constant in the package: functions, classes, columns, settings …"""
    words: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                    words.add(name)
                case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                    words.add(name)
                case ast.Constant(value=str(name)):
                    words.add(name)
    return words


WORDS = words_of_the_code()


def methods_by_class() -> dict[str, set[str]]:
    """The methods of all classes of a name."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                methods = (each.name for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))
                found.setdefault(node.name, set()).update(methods)
    return found


CLASSES = methods_by_class()


def modules_called(name: str) -> list[Any]:
    """Modules by their path (`router/numbers`), dotted name (`modems.pdu`) or last part (`lifecycle`)."""
    path = name.replace(".", "/")
    found = {*PACKAGE.glob(f"{path}.py"), *PACKAGE.glob(f"{path}/__init__.py"), *PACKAGE.glob(f"*/{path}.py")}
    return [import_module(".".join(file.relative_to(ROOT).with_suffix("").parts)) for file in found]


def exists(name: str) -> bool:
    if name.endswith((".py", "/")):
        return (ROOT / name).exists() or (PACKAGE / name).exists() or any(PACKAGE.glob(f"*/{name}"))
    owner, dot, last = name.removesuffix("()").rpartition(".")
    if not dot:
        return last in WORDS
    if owner in CLASSES:
        return last in CLASSES[owner]
    return any(hasattr(module, last) for module in modules_called(owner))


@pytest.mark.parametrize("document", ["docs/flow.md", "docs/architecture.md"])
def test_the_names_in_it_exist(document: str) -> None:
    names = [name for name in quoted(document) if re.fullmatch(r"[\w./]+(\(\))?", name) and name not in OTHERS]
    assert len(names) > 15
    assert [name for name in names if not exists(name)] == []


def command(words: list[str]) -> Any:
    """The command that `gatewayd WORDS` runs: as many of the words as are names of commands."""
    found: Any = get_command(app)
    context = typer.Context(found)
    for number, word in enumerate(words):
        inner = found.get_command(context, word) if hasattr(found, "get_command") else None
        if inner is None:
            assert number, f"no command {word}"
            assert not hasattr(found, "commands") or found.invoke_without_command, f"{words}: no command {word}"
            return found
        found = inner
    return found


@pytest.mark.parametrize(
    "document", ["README.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
)
def test_the_commands_in_it_exist(document: str) -> None:
    """Each `gatewayd …`, with its options; `a|b` is a choice."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = [line for block in re.findall(r"```.*?```", text, re.DOTALL) for line in block.splitlines()]
    typed = [
        line.removeprefix("$ ").partition("#")[0] for line in blocks if line.startswith(("gatewayd ", "$ gatewayd "))
    ]
    for line in [*typed, *(line for line in quoted(document) if line.startswith("gatewayd "))]:
        words = line.replace("\\|", "|").replace("[", " ").replace("]", " ").split()[1:]
        if not words or words[0].startswith("-"):
            continue
        *names, choice = next((words[: i + 1] for i, word in enumerate(words) if "|" in word), [*words, ""])
        for last in choice.split("|"):
            found = command([*names, last] if last else names)
            options = {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
            unknown = [word for word in words if re.fullmatch(r"--?[a-z][\w-]*", word) and word not in options]
            assert unknown == [], line


def test_every_command_is_in_operations() -> None:
    told = " ".join(quoted("docs/operations.md"))
    context = typer.Context(get_command(app))
    names = get_command(app).list_commands(context)  # type: ignore[attr-defined]
    assert [name for name in names if f"gatewayd {name}" not in told] == []


def test_the_links_lead_somewhere() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
        assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == [], path


def test_dependencies_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    names = {re.split(r"[\[<>=~! ;]", requirement)[0] for requirement in wanted} - {project["name"]}
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/dependencies.md").read_text(encoding="utf-8"), re.MULTILINE)
    listed = {name.strip() for row in rows[1:] for name in re.sub(r"\(.*?\)", "", row).split(",")}
    assert {name.lower() for name in listed} == {name.lower() for name in names}
