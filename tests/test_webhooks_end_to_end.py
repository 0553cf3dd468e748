"""A daemon in a process of its own tells a webhook and a message's callback, over kill -9."""

from __future__ import annotations

from pathlib import Path

from tests.daemon import configuration, daemon
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
