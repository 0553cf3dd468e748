"""SIGHUP: another configuration in a running daemon. DESIGN §8."""

from __future__ import annotations

import signal
import sqlite3
from pathlib import Path
from typing import Any

import yaml

from gatewayd.apikeys import add_key, new_key, remove_key
from gatewayd.modems.simulator.process import simulator_process
from tests.daemon import DaemonProcess, configuration, daemon, until

NUMBER = "+59898344484"


def _channel(name: str, port: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": "modem", "port": port, "pacing": {"interval": "0s"}, **more}


async def _ready(gateway: DaemonProcess, *names: str) -> dict[str, dict[str, Any]]:
    """Wait until exactly these channels are there, and ready."""
    found: dict[str, dict[str, Any]] = {}

    async def there() -> bool:
        nonlocal found
        found = {channel["name"]: channel for channel in await gateway.channels()}
        return set(found) == set(names) and all(channel["state"] == "ready" for channel in found.values())

    await until(there, lambda: found)
    return found


async def test_channels_come_and_go_while_the_others_stay(tmp_path: Path) -> None:
    async with simulator_process(modems=3, directory=tmp_path / "sim") as sim:
        config = configuration(tmp_path, [sim.port(0), sim.port(1)])
        async with daemon(tmp_path, config) as gateway:
            before = await _ready(gateway, "m0", "m1")
            config["channels"] = [
                _channel("m0", sim.port(0), pacing={"interval": "10ms"}),
                _channel("m2", sim.port(2)),
            ]
            line = await gateway.reload(config)
            assert "configuration reloaded" in line
            for changed in ("channels[m0].pacing.interval", "channels[m1]: removed", "channels[m2]: added"):
                assert changed in line
            after = await _ready(gateway, "m0", "m2")
            assert after["m0"]["since"] == before["m0"]["since"], "a new pace needs no new session"
            assert after["m0"]["interval_s"] == 0.01
            status, answer = await gateway.post("/api/v1/messages", json={"to": NUMBER, "text": "hi", "channel": "m2"})
            assert status == 202
            idm = answer["idm"]
            await gateway.until(idm, lambda found: found["state"] == 2)
            (row,) = await sim.ledger("submit")
            assert row["from"] == sim.number(2)
            status, answer = await gateway.post("/api/v1/messages", json={"to": NUMBER, "text": "hi", "channel": "m1"})
            assert (status, answer["errors"][0]["field"]) == (422, "channel")


async def test_a_removed_channel_finishes_what_it_has_and_what_is_pinned_to_it_is_held(tmp_path: Path) -> None:
    async with simulator_process(modems=2, directory=tmp_path / "sim") as sim:
        config = configuration(tmp_path, [sim.port(0), sim.port(1)])
        both = config["channels"]
        async with daemon(tmp_path, config) as gateway:
            await _ready(gateway, "m0", "m1")
            await sim.control.call({"do": "latency", "ms": 1500, "modem": 1})
            pinned = [{"to": NUMBER, "text": f"pinned {n}", "channel": "m1"} for n in range(3)]
            status, answer = await gateway.post("/api/v1/messages", json=pinned)
            assert status == 202
            first, second, third = (item["idm"] for item in answer["items"])
            await sim.control.wait("submit", 1)  # its PDU is written, the result is on its way

            await gateway.reload({**config, "channels": both[:1]})
            await _ready(gateway, "m0")
            assert (await gateway.message(first))["state"] == 2, "it was in the modem's hands, and is not lost"
            for idm in (second, third):
                message = await gateway.message(idm)
                assert [segment["state"] for segment in message["segments"]] == ["HELD"]
                assert "no channel m1" in message["explain"]
            assert len(await sim.ledger("submit")) == 1

            await gateway.stop()
        async with daemon(tmp_path, {**config, "channels": both[:1]}) as gateway:
            assert (await gateway.message(second))["segments"][0]["state"] == "HELD", "held over a restart"
            await gateway.reload({**config, "channels": both})
            for idm in (second, third):
                await gateway.until(idm, lambda found: found["state"] == 2)
            assert len(await sim.ledger("submit")) == 3


async def test_a_channel_missing_at_the_start_holds_too(tmp_path: Path) -> None:
    async with simulator_process(modems=2, directory=tmp_path / "sim") as sim:
        config = configuration(tmp_path, [sim.port(0), sim.port(1)])
        async with daemon(tmp_path, config) as gateway:
            await _ready(gateway, "m0", "m1")
            later = {"to": NUMBER, "text": "pinned", "channel": "m1", "not_before": "2030-01-01T00:00:00Z"}
            _, answer = await gateway.post("/api/v1/messages", json=later)
            await gateway.stop()
        async with daemon(tmp_path, {**config, "channels": config["channels"][:1]}) as gateway:
            assert (await gateway.message(answer["idm"]))["segments"][0]["state"] == "HELD"
            await gateway.stop()
        async with daemon(tmp_path, config) as gateway:
            message = await gateway.message(answer["idm"])
            assert message["segments"][0]["state"] == "QUEUED"
            assert message["due_at"] == "2030-01-01T00:00:00.000Z", "and still waits for its time"


async def test_a_faulty_file_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim:
        config = configuration(tmp_path, [sim.port(0)])
        async with daemon(tmp_path, config) as gateway:
            await _ready(gateway, "m0")
            for faulty, named in (
                ({**config, "chanels": []}, "chanels"),
                ({**config, "http": {**config["http"], "api_keys_file": str(tmp_path / "none")}}, "api_keys_file"),
                ({**config, "webhooks": [{"name": "a", "url": "ftp://x"}]}, "webhooks[0].url"),
            ):
                line = await gateway.reload(faulty)
                assert "configuration refused, the old one stays" in line
                assert named in line
            await _ready(gateway, "m0")
            idm = await gateway.send(NUMBER, "still here")
            await gateway.until(idm, lambda found: found["state"] == 2)
            async with gateway.session.get(f"http://{gateway.address}/metrics") as response:
                assert "gatewayd_config_last_reload_successful 0.0" in await response.text()
            assert "configuration reloaded" in await gateway.reload(config)
            async with gateway.session.get(f"http://{gateway.address}/metrics") as response:
                assert "gatewayd_config_last_reload_successful 1.0" in await response.text()


async def test_api_keys_networks_and_rules_take_effect_and_what_cannot_is_said(tmp_path: Path) -> None:
    keys = tmp_path / "api-keys"
    secret, record = new_key("crm", ["send", "read"])
    add_key(keys, record)
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim:
        http = {"api_keys_file": str(keys), "trusted_networks": []}
        config = configuration(tmp_path, [sim.port(0)], http=http)
        async with daemon(tmp_path, config) as gateway:
            form = {"destination": NUMBER, "message": "x" * 200}
            headers = {"Authorization": f"Bearer {secret}"}
            assert (await gateway.post("/SendSMS", data=form, headers=headers))[0] == 200
            newer, record = new_key("erp", ["send"])
            add_key(keys, record)
            remove_key(keys, "crm")
            config["gateway"] = {**config["gateway"], "max_segments": 1}
            config["http"] = {**config["http"], "listen": "127.0.0.1:1"}
            line = await gateway.reload(config)
            assert "gateway.max_segments" in line
            assert "http.listen: takes effect at the next start" in line
            assert (await gateway.post("/SendSMS", data=form, headers=headers))[0] == 401, "the key is gone"
            headers = {"Authorization": f"Bearer {newer}"}
            status, answer = await gateway.post("/SendSMS", data=form, headers=headers)
            assert (status, answer["errors"][0]["field"]) == (422, "message"), "too long by the new rule"
            form["message"] = "short"
            assert (await gateway.post("/SendSMS", data=form, headers=headers))[0] == 200


async def test_hangups_while_sending_lose_and_double_nothing(tmp_path: Path) -> None:
    """Promises 2 and 4: the channel is opened anew at each reload, in the middle of its work."""
    async with simulator_process(modems=2, directory=tmp_path / "sim", latency_ms=5) as sim:
        config = configuration(tmp_path, [sim.port(0), sim.port(1)])
        async with daemon(tmp_path, config) as gateway:
            await _ready(gateway, "m0", "m1")
            batch = [{"to": f"+5989{n:05}77", "text": f"message {n}"} for n in range(300)]
            assert (await gateway.post("/api/v1/messages", json=batch))[0] == 202
            for turn in range(5):
                config["channels"][turn % 2]["guard_time"] = f"{turn + 1}ms"
                assert "configuration reloaded" in await gateway.reload(config)
            gateway.process.send_signal(signal.SIGHUP)
            await sim.control.wait("delivered", 300, timeout_s=60)

            async def settled() -> bool:
                return all(message["state"] == 2 for message in await gateway.messages())

            await until(settled)
            assert len(await sim.ledger("submit")) == 300


async def test_a_stop_in_the_middle_of_a_reload_begins_nothing_more(tmp_path: Path) -> None:
    """The reload waits for a modem that takes its time; the others stop at once, and all of it within one bound."""
    async with simulator_process(modems=2, directory=tmp_path / "sim", latency_ms=20) as sim:
        config = configuration(tmp_path, [sim.port(0), sim.port(1)], gateway={"shutdown_timeout": "5s"})
        async with daemon(tmp_path, config) as gateway:
            await _ready(gateway, "m0", "m1")
            await sim.control.call({"do": "latency", "ms": 600_000, "modem": 1})
            await gateway.post("/api/v1/messages", json={"to": NUMBER, "text": "slow", "channel": "m1"})
            await sim.control.wait("submit", 1)
            batch = [{"to": f"+5989{n:05}77", "text": f"message {n}", "channel": "m0"} for n in range(1000)]
            assert (await gateway.post("/api/v1/messages", json=batch))[0] == 202
            config["channels"][1]["guard_time"] = "1ms"
            (tmp_path / "gatewayd.yaml").write_text(yaml.safe_dump(config))
            gateway.process.send_signal(signal.SIGHUP)
            before = len(await sim.ledger("submit"))
            await sim.control.wait("submit", before + 5)
            gateway.process.send_signal(signal.SIGTERM)

            async def stopping() -> bool:
                return any("stopping" in line for line in gateway.log)

            await until(stopping, lambda: gateway.log)
            before = len(await sim.ledger("submit"))
            assert await gateway.process.wait() == 0
            assert len(await sim.ledger("submit")) <= before + 2, "what it had in its hands, and nothing more"


async def test_a_reload_while_the_spool_is_locked_is_taken_and_says_what_is_left_to_do(tmp_path: Path) -> None:
    """Promise 4: somebody else writes to the file for longer than a write waits."""
    async with simulator_process(modems=2, directory=tmp_path / "sim") as sim:
        config = configuration(tmp_path, [sim.port(0), sim.port(1)])
        async with daemon(tmp_path, config) as gateway:
            await _ready(gateway, "m0", "m1")
            later = {"to": NUMBER, "text": "pinned", "channel": "m1", "not_before": "2030-01-01T00:00:00Z"}
            _, answer = await gateway.post("/api/v1/messages", json=later)
            other = sqlite3.connect(tmp_path / "spool.db", isolation_level=None)
            other.execute("BEGIN IMMEDIATE")
            config["channels"] = config["channels"][:1]
            line = await gateway.reload(config)
            assert "configuration reloaded" in line
            assert "NOT yet held or released, reload once more" in line
            other.execute("ROLLBACK")
            other.close()
            await _ready(gateway, "m0")
            assert "configuration reloaded" in await gateway.reload(config)
            assert (await gateway.message(answer["idm"]))["segments"][0]["state"] == "HELD"
            assert await gateway.stop() == 0
