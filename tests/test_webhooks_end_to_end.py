"""A daemon in a process of its own tells a webhook and a message's callback, over kill -9."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tests.daemon import configuration, daemon, until
from tests.router.receivers import Never, receiver


async def test_what_was_accepted_is_told_over_a_kill(tmp_path: Path) -> None:
    never = Never()
    async with receiver(never) as crm, receiver() as app:
        config = configuration(
            tmp_path,
            [],
            webhooks=[{"name": "crm", "url": crm.url, "events": ["message.*"], "allow_private": True}],
            http={"callbacks": {"allowed_networks": ["127.0.0.0/8"]}},
        )
        async with daemon(tmp_path, config) as gateway:
            for number in range(3):
                body = {"text": "hello", "callback_url": app.url}
                status, _ = await gateway.post("/api/v1/messages", json={**body, "to": f"+5989834448{number}0"})
                assert status == 202
            await app.until_got(3)
            await crm.until_got(1)
            await gateway.kill()
        never.released.set()
        async with daemon(tmp_path, config):
            got = await crm.until_got(4)
            assert [each.json["data"]["idm"] for each in got] == [1, 1, 2, 3]
            assert (got[0].id, got[0].body) == (got[1].id, got[1].body)
            assert {each.json["data"]["idm"] for each in app.got} == {1, 2, 3}  # at least once


async def test_the_log_is_read_from_the_spool_when_no_daemon_is_there(tmp_path: Path) -> None:
    """DESIGN §8: commands that only read fall back to the spool, and say so."""
    async with receiver() as crm:
        config = configuration(tmp_path, [], webhooks=[{"name": "crm", "url": crm.url, "allow_private": True}])
        async with daemon(tmp_path, config) as gateway:
            await gateway.send("+59898344480", "hello")
            await crm.until_got(1)

            async def log() -> list[dict[str, Any]]:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "gatewayd", "webhooks", "log", "-e", "crm", "--json",
                    "-c", str(tmp_path / "gatewayd.yaml"),
                    stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
                )  # fmt: skip
                output, said = await process.communicate()
                assert process.returncode == 0, said
                assert (b"this is read from the spool" in said) == (gateway.process.returncode is not None)
                return [json.loads(line) for line in output.splitlines()]

            async def noted() -> bool:
                return [item["state"] for item in await log()] == ["done"]

            await until(noted)
            live = await log()
            assert await gateway.stop() == 0
            assert await log() == live
