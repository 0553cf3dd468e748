"""Webhooks from outside: who there is, the log, a test event, a replay; and the commands on top of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gatewayd.cli import app
from gatewayd.clock import SystemClock
from gatewayd.commands import control
from gatewayd.http import schemas_webhooks
from gatewayd.router.endpoints import Manner, subscriptions
from gatewayd.router.outbox import Outbox
from gatewayd.spool.events import CHANNEL, GatewayEvent
from gatewayd.spool.work import Rules
from tests.daemon import until
from tests.http.helpers import ADMIN, READ, Gateway, bearer, gateway
from tests.router.receivers import HERE, Got, Receiver, receiver, webhook
from tests.spool.helpers import message
from tests.test_metrics import prepared

URL = "/api/v1/webhooks"


@asynccontextmanager
async def telling(folder: Path, answer: Any = lambda got: 200) -> AsyncIterator[tuple[Gateway, Receiver]]:
    """A gateway with the webhook `crm`, which answers so, and one that is disabled."""
    socket = str(folder / "control.sock")
    async with receiver(answer) as crm, gateway(folder, control_socket=socket) as gate:
        hooks = [webhook("crm", crm.url, events=("channel.*",), key=b"k"), webhook("off", crm.url, enabled=False)]
        outbox = Outbox(gate.store, gate.context.reader, SystemClock())
        gate.store.configure(Rules(), gate.store._intake, subscriptions(hooks))
        outbox.configure(hooks, Manner(reach=HERE))
        gate.context.outbox = outbox
        await outbox.start()
        try:
            yield gate, crm
        finally:
            await outbox.stop(0)


async def tell(gate: Gateway, *reasons: str) -> None:
    for reason in reasons:
        event = GatewayEvent(CHANNEL, channel="m0", data={"state": "ready", "reason": reason})
        await gate.store.note(event)
    assert gate.context.outbox is not None
    gate.context.outbox.notify({"webhook:crm"})


async def settled(gate: Gateway, state: str, count: int) -> list[dict[str, Any]]:
    page: Any = None

    async def there() -> bool:
        nonlocal page
        page = await gate.get(f"{URL}/deliveries", key=ADMIN, params={"state": state})
        return len(page.json["items"]) >= count

    await until(there, lambda: page)
    schemas_webhooks.Deliveries.model_validate(page.json)
    return list(page.json["items"])


def no(got: Got) -> int:
    return 422 if got.json["type"] == "channel.state" and got.json["data"]["reason"] == "bad" else 200


async def command(gate: Gateway, *words: str) -> tuple[int, str]:
    """Run `gatewayd webhooks …` in a thread, against the control socket."""
    arguments = ["webhooks", *words, "--socket", gate.context.settings.control_socket]
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    return result.exit_code, result.output


async def test_who_there_is(tmp_path: Path) -> None:
    async with telling(tmp_path) as (gate, crm):
        await tell(gate, "a")
        await settled(gate, "done", 1)
        await gate.store.accept([message(callback_url="http://127.0.0.9:1/x")])
        answer = await gate.get(URL, key=ADMIN)
        assert answer.status == 200
        schemas_webhooks.Webhooks.model_validate(answer.json)
        first, second = answer.json["items"]
        assert (first["name"], first["signed"], first["last"]["status"], first["pending"]) == ("crm", True, 200, 0)
        assert (second["name"], second["enabled"], second["last"]) == ("off", False, None)
        callbacks = answer.json["callbacks"]
        assert (callbacks["hosts"], callbacks["pending"]) == (1, 1)
        assert (await gate.get(URL, key=READ)).status == 403
        status, output = await command(gate, "list")
        assert (status, "crm      works" in output, "callbacks: 1 pending" in output) == (0, True, True)
        assert json.loads((await command(gate, "list", "--json"))[1])["items"][0]["name"] == "crm"
        assert crm.busy == 1


async def test_a_webhook_that_is_not_configured_any_more_is_shown(tmp_path: Path) -> None:
    async with telling(tmp_path, lambda got: 500) as (gate, crm):
        await tell(gate, "a")
        await crm.until_got(1)
        assert gate.context.outbox is not None
        gate.context.outbox.configure([], Manner())
        (gone,) = (await gate.get(URL, key=ADMIN)).json["items"]
        assert (gone["name"], gone["configured"], gone["pending"]) == ("crm", False, 1)
        assert "not configured" in (await command(gate, "list"))[1]


async def test_what_nobody_calls_any_more_does_not_count_as_late(tmp_path: Path) -> None:
    """GatewaydWebhookBacklog goes by the oldest event: a webhook that was taken away would page for ever."""

    async def oldest(gate: Gateway) -> dict[str, bool]:
        async with gate.client.get(gate.url + "/metrics", headers=bearer(ADMIN)) as response:
            text = await response.text()
        found = re.findall(r'^gatewayd_outbox_(backlog|oldest_seconds)\{endpoint="(.+)"\} (.+)$', text, re.MULTILINE)
        return {f"{name} {endpoint}": float(value) > 0 for name, endpoint, value in found}

    with prepared(endpoints=("webhook:crm",)):
        async with telling(tmp_path, lambda got: 500) as (gate, crm):
            await tell(gate, "a")
            await crm.until_got(1)
            found = await oldest(gate)
            assert (found["backlog webhook:crm"], found["oldest_seconds webhook:crm"]) == (True, True)
            assert gate.context.outbox is not None
            gate.context.outbox.configure([webhook("crm", crm.url, enabled=False)], Manner())
            found = await oldest(gate)
            assert (found["backlog webhook:crm"], found["oldest_seconds webhook:crm"]) == (True, False)
            gate.context.outbox.configure([], Manner())
            found = await oldest(gate)
            assert (found["backlog webhook:crm"], found["oldest_seconds webhook:crm"]) == (True, False)


async def test_log_and_replay(tmp_path: Path) -> None:
    async with telling(tmp_path, no) as (gate, crm):
        await tell(gate, "a", "bad", "b")
        await settled(gate, "done", 2)  # after the three tries of the bad one, which take seconds
        (dead,) = await settled(gate, "dead", 1)
        assert (dead["status"], dead["attempts"], dead["type"], dead["url"]) == (422, 3, "channel.state", None)
        page = await gate.get(f"{URL}/deliveries", key=ADMIN, params={"endpoint": "crm", "limit": "2", "order": "desc"})
        assert [each["id"] for each in page.json["items"]] == [3, 2]
        page = await gate.get(f"{URL}/deliveries", key=ADMIN, params={"after": "2", "order": "desc"})
        assert ([each["id"] for each in page.json["items"]], page.json["next"]) == ([1], None)
        status, output = await command(gate, "log", "--state", "dead")
        assert (status, "HTTP 422" in output) == (0, True)
        crm.answer = lambda got: 200
        before = len(crm.got)
        answer = await gate.request("POST", f"{URL}/replay", key=ADMIN, json={"name": "crm"})
        assert (answer.status, answer.json) == (200, {"replayed": 1, "next": None})
        schemas_webhooks.Replayed.model_validate(answer.json)
        await crm.until_got(before + 1)
        assert crm.got[-1].json["data"]["reason"] == "bad"
        await settled(gate, "done", 3)
        assert await command(gate, "replay", "--all") == (0, "0 deliveries pending again\n")
        assert await command(gate, "replay", "3", "--done") == (0, "1 delivery pending again\n")
        await crm.until_got(before + 2)
        assert (await command(gate, "replay"))[0] == 2
        for words in (("replay", "--endpoint", "cmr"), ("log", "--endpoint", "webhook:cmr")):
            assert await command(gate, *words) == (1, "there is no webhook 'cmr'; there are crm, off\n")
        assert await command(gate, "replay", "--endpoint", "off") == (0, "0 deliveries pending again\n")


async def test_the_test_event(tmp_path: Path) -> None:
    async with telling(tmp_path) as (gate, crm):
        answer = await gate.request("POST", f"{URL}/crm/test", key=ADMIN)
        schemas_webhooks.WebhookTested.model_validate(answer.json)
        assert (answer.json["ok"], answer.json["status"], answer.json["error"]) == (True, 200, "")
        assert crm.got[0].json["type"] == "webhook.test"
        crm.answer = lambda got: 401
        status, output = await command(gate, "test", "crm")
        assert (status, "HTTP 401 Unauthorized" in output) == (1, True)
        assert (await gate.request("POST", f"{URL}/other/test", key=ADMIN)).status == 404
        status, output = await command(gate, "test", "other")
        assert (status, output) == (1, "there is no webhook 'other' in the configuration\n")
        assert (await gate.get(f"{URL}/deliveries", key=ADMIN)).json["items"] == []


async def test_a_test_waits_as_long_as_a_webhook_may_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`timeout` may be two minutes: that the daemon does not answer would be a lie."""
    released = asyncio.Event()

    async def slow(got: Got) -> int:
        await released.wait()
        return 200

    monkeypatch.setattr(control, "LIMIT_S", 0.05)
    async with telling(tmp_path, slow) as (gate, crm):
        asking = asyncio.create_task(command(gate, "test", "crm"))
        await crm.until_got(1)
        done, _ = await asyncio.wait({asking}, timeout=0.3)  # several times the limit of other commands
        assert not done
        released.set()
        assert (await asking)[0] == 0


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "crm", "endpoint": "webhook:crm"}, "endpoint"),
        ({"state": "done", "name": "crm"}, "state"),
        ({"state": "pending"}, "state"),
        ({"ids": []}, "ids"),
        ({"ids": list(range(1, 502))}, "ids"),
        ({"since": "yesterday"}, "since"),
        ({"name": "a\0"}, "name"),
        ({"who": 1}, "who"),
    ],
)
async def test_a_replay_that_makes_no_sense(tmp_path: Path, body: dict[str, Any], field: str) -> None:
    async with telling(tmp_path) as (gate, _):
        answer = await gate.request("POST", f"{URL}/replay", key=ADMIN, json=body)
        assert answer.status == 422
        assert answer.fields == [field]


async def test_bad_parameters_of_the_log(tmp_path: Path) -> None:
    async with telling(tmp_path) as (gate, _):
        for name, value in (("state", "lost"), ("after", "x"), ("limit", "0"), ("order", "up"), ("endpoint", "")):
            answer = await gate.get(f"{URL}/deliveries", key=ADMIN, params={name: value})
            assert (answer.status, answer.fields) == (422, [name])
