"""The crash points: the list is what stands in the code, they cost nothing, and a wrong name is no silent success."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gatewayd import crashpoints

ROOT = Path(__file__).parents[1]


def test_every_point_stands_in_the_code_and_every_one_in_the_code_is_listed() -> None:
    found = set()
    for path in (ROOT / "gatewayd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"crashpoints.reach", "crashpoints.is_armed"}:
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{path}: the name of a point is a constant"
                found.add(argument.value)
    assert found == set(crashpoints.POINTS)


def _passing(value: str, passages: int) -> subprocess.CompletedProcess[str]:
    code = (
        f"from gatewayd import crashpoints\nfor i in range({passages}): crashpoints.reach('writer.committed'); print(i)"
    )
    return subprocess.run(
        [sys.executable, "-uc", code], cwd=ROOT, env={crashpoints.VARIABLE: value}, capture_output=True, text=True
    )


def test_the_process_ends_at_the_passage_that_was_asked_for() -> None:
    ended = _passing("writer.committed:3", 5)
    assert (ended.returncode, ended.stdout.split()) == (-signal.SIGKILL, ["0", "1"])
    for value in ("", "writer.committed:6", "writer.resolved:1"):
        ended = _passing(value, 5)
        assert (ended.returncode, len(ended.stdout.split())) == (0, 5), value


@pytest.mark.parametrize(
    "value", ["writer.comitted:1", "writer.committed", "writer.committed:0", "writer.committed:-1"]
)
def test_a_point_that_there_is_none_of_is_refused(value: str) -> None:
    ended = _passing(value, 1)
    assert ended.returncode == 1
    assert '"POINT:N" with N from 1 is expected' in ended.stderr
