"""A channel whose network refuses everything is stopped, and takes no message down with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from gatewayd.errors import SubmitError
from gatewayd.model import FailureClass, Outcome, Receipt, Segment
from gatewayd.spool.retry import RetryPolicy
from gatewayd.spool.work import Rules
from tests.router.test_dispatcher import CLOCK, Scripted, rig, taken

RULES = Rules(retry=RetryPolicy(attempts=3, backoff_ms=(1,)))


async def out_of_order(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
    """The network of channel a refuses; others take."""
    if channel.name == "a":
        now = CLOCK.now_ms()
        raise SubmitError(Outcome.NOT_SENT, FailureClass.NETWORK, "out of order", code="CMS 38", started_ms=now)
    return await taken(channel, segment, gate)


async def test_its_messages_go_to_the_others_and_none_is_lost(tmp_path: Path) -> None:
    async with rig(tmp_path, "a", "b", script=out_of_order, away=("b",), rules=RULES) as r:
        ids = await r.accept(*["x"] * 30)
        breaker = r.dispatcher._channels["a"].breaker
        await r.until(lambda: "stopped: CMS 38" in breaker.reason(CLOCK.monotonic(), str))
        r.network.up["b"].set()
        refused = "SELECT count(DISTINCT message_id) FROM attempts WHERE channel = 'a' AND outcome = 'not_sent'"
        ((first,),) = r.rows(refused)
        # What was refused last waits past the next try of channel a; all the others need not.
        await r.until(lambda: len(r.network.sent) >= len(ids) - 1)
        assert {channel for channel, _, _ in r.network.sent} == {"b"}
        assert isinstance(first, int)
        assert first < len(ids), "it was stopped long before it had tried them all"
        assert r.rows("SELECT id FROM messages WHERE state = 5") == []


async def test_alone_it_uses_up_no_messages_tries(tmp_path: Path) -> None:
    rules = Rules(retry=RetryPolicy(attempts=1, backoff_ms=(1,)))
    async with rig(tmp_path, "a", script=out_of_order, rules=rules) as r:
        await r.accept(*["x"] * 10)
        breaker = r.dispatcher._channels["a"].breaker
        await r.until(lambda: "stopped: CMS 38" in breaker.reason(CLOCK.monotonic(), str))
        await r.until(lambda: r.dispatcher._channels["a"].in_hand is None)
        failed = r.rows("SELECT id FROM messages WHERE state = 5")
        assert len(failed) == 4, "those before it was known that the channel is at fault"
        await r.until(lambda: len(r.rows("SELECT id FROM messages WHERE state = 1")) == 6)
