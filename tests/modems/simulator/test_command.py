"""`gatewayd simulate` as a typer command."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from gatewayd.commands import simulate as module
from gatewayd.modems.simulator.personality import PERSONALITIES
from gatewayd.modems.simulator.server import Options


def _app() -> typer.Typer:
    app = typer.Typer()
    app.command()(module.simulate)
    return app


def test_options_reach_the_simulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Options] = []
    monkeypatch.setattr(module, "run", seen.append)
    arguments = ["--dir", str(tmp_path), "--modems", "3", "--latency-ms", "5", "--report-delay-ms", "7"]
    arguments += ["--personality", "huawei", "--number-base", "+598991"]
    assert CliRunner().invoke(_app(), arguments).exit_code == 0
    assert seen == [Options(tmp_path, 3, 5.0, 7.0, "huawei", "+598991")]


def test_bad_options_are_said_in_one_line(tmp_path: Path) -> None:
    result = CliRunner().invoke(_app(), ["--dir", str(tmp_path), "--modems", "0"])
    assert result.exit_code == 2
    assert result.output == "modems: 1 to 256\n"


def test_every_personality_can_be_named() -> None:
    assert [name.value for name in module.PersonalityName] == list(PERSONALITIES)
