"""The control socket and the address: what is there already, and what is left behind."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import aiohttp
import pytest

from gatewayd.errors import ConfigError
from tests.http.helpers import ADMIN, DEADLINE_S, Operator, gateway


def mode_of(path: Path) -> int | None:
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


async def healthy(path: Path) -> bool:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client,
        client.get("http://local/healthz") as response,
    ):
        return response.status == 200


async def test_the_control_socket_is_for_its_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    async with gateway(tmp_path, control_socket=str(path)):
        assert mode_of(path) == 0o660
        assert await healthy(path)
    assert mode_of(path) is None


async def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()  # as after a crash: the file is there, and nobody listens
    async with gateway(tmp_path, control_socket=str(path)):
        assert await healthy(path)


async def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    path.write_text("precious")
    with pytest.raises(ConfigError, match="control_socket"):
        async with gateway(tmp_path, control_socket=str(path)):
            pass
    assert path.read_text() == "precious"


async def test_the_socket_of_a_running_daemon_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    (tmp_path / "other").mkdir()
    async with gateway(tmp_path, control_socket=str(path)):
        with pytest.raises(ConfigError, match="in use"):
            async with gateway(tmp_path / "other", control_socket=str(path)):
                pass
        assert await healthy(path)


async def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"control_socket.*No such file"):
        async with gateway(tmp_path, control_socket=str(tmp_path / "none" / "control.sock")):
            pass


async def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with gateway(tmp_path) as gate:
        with pytest.raises(ConfigError, match=r"http\.listen.*in use"):
            async with gateway(tmp_path / "other", port=gate.server.address[1]):
                pass


async def test_what_is_being_answered_is_finished_at_the_stop(tmp_path: Path) -> None:
    entered, release = asyncio.Event(), asyncio.Event()

    class Slow(Operator):
        async def resume(self, actor: str) -> None:
            entered.set()
            await release.wait()

    async with gateway(tmp_path) as gate:
        gate.context.control = Slow()
        asked = asyncio.create_task(gate.send("/api/v1/resume", key=ADMIN))
        await asyncio.wait_for(entered.wait(), DEADLINE_S)
        stopping = asyncio.create_task(gate.server.stop())
        async with asyncio.timeout(DEADLINE_S):
            while True:  # until it takes no more connections
                try:
                    _, writer = await asyncio.open_connection(*gate.server.address)
                except OSError:
                    break
                writer.close()
        release.set()
        assert (await asked).status == 200
        await stopping
