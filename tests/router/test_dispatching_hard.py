"""Where work could lie idle beside an idle channel, or a channel ask in vain over and over.

As in test_dispatching: a real spool, the real dispatcher, channels that do as they are told.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from gatewayd.model import MessageClass, Receipt, Segment
from gatewayd.router import eligibility
from gatewayd.router.channeltask import Pacing, Sim
from gatewayd.router.eligibility import DialerSettings, DispatchSettings, UrgentSettings
from gatewayd.router.windows import Schedule, Window
from gatewayd.spool.channel_modes import DRAINING, PAUSED, WORKS
from gatewayd.spool.filters import Filter
from gatewayd.spool.orders import Action, Order
from gatewayd.spool.quota import SimQuota
from gatewayd.spool.work import Line, Result, Taken, Want
from tests.router.test_dispatcher import Scripted, taken
from tests.router.test_dispatching import ALL, Hall, ShiftedClock, hall

ONE_NEW = Sim(quota=SimQuota(recipients_per_month=1))


async def spend(h: Hall, channel: str) -> None:
    """The channel's SIM writes to the one number it may write to this month, and learns that this was all."""
    await h.send("x", first=900, channel=channel)
    await h.settled()


async def ask(h: Hall, action: Action, message_id: int) -> None:
    """An operator's word about one message."""
    await h.store.operate(Order(action, "root"), Filter(ids=(message_id,)), ["a", "b"])


# Dialers that keep an interval.


async def test_a_dialers_next_message_is_found_by_the_channel_it_is_for(tmp_path: Path) -> None:
    """The dialer's timer wakes a channel that the message is not for: the others look, too."""
    dialer = DialerSettings("d", interval_s=0.02)
    async with hall(tmp_path, "a", "b", settings=DispatchSettings(dialers={"d": dialer})) as h:
        await h.ready()
        await h.send(*["x"] * 5, source="dialer:d", channel="b")
        await h.settled()
        assert h.intents() == ["b"] * 5


@pytest.mark.parametrize("crash", [False, True])
async def test_a_dialer_keeps_its_interval_over_a_restart(tmp_path: Path, crash: bool) -> None:
    """DESIGN §6: consecutive starts of a dialer are its interval apart; what was in hand at the end counts."""
    stuck = asyncio.Event()

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        if segment.message.text == "s":
            await stuck.wait()
        return await taken(channel, segment, gate)

    settings = DispatchSettings(dialers={"d": DialerSettings("d", interval_s=1.5, burst=2)})
    async with hall(tmp_path, "a", "b", settings=settings, script=script) as h:
        await h.ready()
        await h.send("s" if crash else "x", source="dialer:d", target="dialer")
        await h.until(lambda: h.intents() != [])
        if not crash:
            await h.settled()
    async with hall(tmp_path, "a", "b", settings=settings, script=script) as h:
        await h.ready()
        (other,) = await h.send("x", first=10)
        (second,) = await h.send("x", first=20, source="dialer:d", target="dialer")
        await h.settled()
        assert [message for _, message, _ in h.network.sent] == [other, second]
        ((begun,), *_) = h.rows("SELECT intent_at FROM attempts ORDER BY message_id")
        assert h.starts()[-1] - int(str(begun)) >= 1500


async def test_a_shorter_interval_holds_at_once(tmp_path: Path) -> None:
    """Whoever wrote 1h for 1s, and reloads, does not wait for an hour."""
    async with hall(tmp_path, "a", settings=DispatchSettings(dialers={"d": DialerSettings("d", interval_s=3600)})) as h:
        await h.ready()
        await h.send("x", "x", "x", source="dialer:d", target="dialer")
        await h.until(lambda: len(h.network.sent) == 1)
        await h.ready()
        h.dispatcher.configure(DispatchSettings(dialers={"d": DialerSettings("d", interval_s=0.1)}))
        await h.settled()
        assert all(later - earlier >= 100 for earlier, later in itertools.pairwise(h.starts()))


async def test_a_smaller_burst_leaves_nothing_lying(tmp_path: Path) -> None:
    """The interval of the last start counts again then, and its timer is over."""
    dialers = {"d": DialerSettings("d", interval_s=0.5, burst=5)}
    async with hall(tmp_path, "a", settings=DispatchSettings(dialers=dialers)) as h:
        await h.ready()
        await h.send("x", source="dialer:d", target="dialer")
        await h.settled()
        await h.ready()
        h.dispatcher.configure(DispatchSettings(dialers={"d": DialerSettings("d", interval_s=0.5)}))
        await h.send("x", first=1, source="dialer:d", target="dialer")
        await h.settled()


async def test_the_rest_of_a_text_goes_out_though_its_dialer_is_gone(tmp_path: Path) -> None:
    step = asyncio.Semaphore(0)

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        await step.acquire()
        return await taken(channel, segment, gate)

    async with hall(tmp_path, "a", script=script, settings=DispatchSettings(dialers={"d": DialerSettings("d")})) as h:
        await h.ready()
        await h.send("xxx", source="dialer:d", target="dialer")
        await h.until(lambda: h.intents() == ["a"])
        h.dispatcher.configure(DispatchSettings())
        for _ in range(3):
            step.release()
        await h.settled()
        assert len(h.network.sent) == 3


# SIMs that have no room.


@pytest.mark.parametrize("target", ["channel:a>channel:b", "sim:1>any", "turn::(0.1)"])
async def test_who_has_no_room_for_new_recipients_is_passed_over(tmp_path: Path, target: str) -> None:
    """DESIGN §6, quota spent: the next place, and the next in turn, serve at once."""
    settings = DispatchSettings(order=("a", "b"), turn_patience_s=3600)
    async with hall(tmp_path, "a", "b", sims={"a": ONE_NEW}, settings=settings, away=("b",)) as h:
        await h.until(lambda: len(h.dispatcher._wakes.idle) == 1)
        await spend(h, "a")
        h.network.up["b"].set()
        await h.ready()
        await h.send(*["x"] * 4, target=target)
        await h.settled()
        assert h.intents() == ["a"] + ["b"] * 4


async def test_a_contact_whose_sender_has_no_room_is_written_to_by_another(tmp_path: Path) -> None:
    """The sender is remembered over months, the quota is not."""
    async with hall(tmp_path, "a", "b", sims={"a": ONE_NEW}, away=("b",)) as h:
        await h.until(lambda: len(h.dispatcher._wakes.idle) == 1)
        h.dispatcher._channels["a"].quota = SimQuota()  # it is of last month, say
        await h.send("x", target="sticky:any")
        await h.settled()
        h.dispatcher._channels["a"].quota = ONE_NEW.quota
        await spend(h, "a")
        h.network.up["b"].set()
        await h.ready()
        await h.send("x", target="sticky:any")
        await h.settled()
        assert h.intents() == ["a", "a", "b"]


async def test_who_finds_that_it_has_no_room_tells_the_others(tmp_path: Path) -> None:
    async with hall(tmp_path, "a", "b", sims={"a": ONE_NEW}) as h:
        await h.ready()
        await spend(h, "a")
        await h.dispatcher.set_channel_mode("b", PAUSED, "root", "")
        (waits,) = await h.send("x")
        await h.until(lambda: h.rows(f"SELECT avoid_sim_id FROM messages WHERE id = {waits}") == [(-1,)])
        await ask(h, Action.HOLD, waits)
        await h.dispatcher.set_channel_mode("b", WORKS, "root", "")
        h.dispatcher.configure(DispatchSettings())
        await h.ready()
        h.dispatcher._wakes.wake(h.dispatcher._channels["b"])
        await h.ready()
        assert [task.name for task in h.dispatcher._wakes.idle] == ["a", "b"], "a is asked first"
        await ask(h, Action.RELEASE, waits)
        await h.settled()
        assert h.intents() == ["a", "b"]


async def test_a_channel_that_is_woken_while_it_asks_is_not_taken_for_idle_when_it_is_busy(tmp_path: Path) -> None:
    stuck = asyncio.Event()

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        if segment.message.text == "s":
            await stuck.wait()
        return await taken(channel, segment, gate)

    async with hall(tmp_path, "a", "b", script=script) as h:
        await h.ready()
        task, work = h.dispatcher._channels["a"], h.store.work
        questions = 0
        first = asyncio.Event()

        async def answered(line: Line, result: Result | None, want: Want | None) -> Taken:
            nonlocal questions
            if line.channel == "b":
                await first.wait()
                return await work(line, result, want)
            questions += 1
            if questions == 2:
                await h.send("s")
            found = await work(line, result, want)
            if questions == 1:
                h.dispatcher._wakes.wake(task)  # its state has changed, say
            return found

        h.store.work = answered  # type: ignore[method-assign]
        h.dispatcher._wakes.wake(task)
        await h.until(lambda: h.intents() == ["a"])
        first.set()
        await h.until(lambda: h.dispatcher._channels["b"] in h.dispatcher._wakes.idle)
        await h.send("x", first=10)
        await h.until(lambda: h.intents() == ["a", "b"])
        stuck.set()
        await h.settled()


# Questions asked in vain.


async def send_each(h: Hall, first: int, **values: object) -> None:
    """Accept many messages one after the other."""
    for n in range(60):
        await h.send("x", first=first + n, **values)


class Asked:
    """Counts the questions of each channel."""

    def __init__(self, h: Hall) -> None:
        self.count = 0
        work = h.store.work

        async def counted(line: Line, result: Result | None, want: Want | None) -> Taken:
            self.count += 1
            return await work(line, result, want)

        h.store.work = counted  # type: ignore[method-assign]


MANY = tuple(f"c{n}" for n in range(16))


async def test_what_is_accepted_for_a_closed_lane_keeps_no_idle_channel_busy(tmp_path: Path) -> None:
    settings = DispatchSettings(dialers={"d": DialerSettings("d", enabled=False)})
    async with hall(tmp_path, *MANY, settings=settings) as h:
        await h.ready()
        asked = Asked(h)
        accepting = asyncio.gather(*(send_each(h, 1000 * n, source="dialer:d", target="dialer") for n in range(1, 17)))
        await h.send(*"x" * len(MANY))
        await accepting
        await h.ready()
        assert asked.count <= 4 * len(MANY)


async def test_an_alert_makes_no_paced_channel_ask_more_than_once(tmp_path: Path) -> None:
    settings = DispatchSettings(urgent=UrgentSettings(interval_s=0))
    async with hall(tmp_path, *MANY, settings=settings, pacing=Pacing(3600)) as h:
        await h.ready()
        await h.send(*"x" * len(MANY))
        await h.settled()
        await h.dispatcher.set_channel_mode("c1", PAUSED, "root", "")
        asked = Asked(h)
        accepting = asyncio.gather(*(send_each(h, 1000 * n) for n in range(1, 17)))
        (alert,) = await h.send("x", first=900, class_=MessageClass.ALERT, channel="c1")
        await accepting
        assert asked.count <= 4 * len(MANY)
        await h.dispatcher.set_channel_mode("c1", WORKS, "root", "")
        await h.until(lambda: h.network.sent[-1][1] == alert)


async def test_a_doubt_that_came_and_went_unseen_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eligibility, "DOUBT_AGAIN_S", 0.05)
    async with hall(tmp_path, "a", sims={"a": Sim(quota=SimQuota(per_day=10))}) as h:
        h.doubt = "the clock reads 1970"
        await h.ready()
        await h.send("x")
        await h.ready()
        assert h.intents() == []
        h.doubt = ""
        await h.settled()


# Validity, and what is said.


async def test_an_alert_that_may_go_out_of_hours_is_not_cut_to_them(tmp_path: Path) -> None:
    clock = ShiftedClock()
    minute = clock.now_ms() // 60_000 % 1440
    window = Window(ALL, (minute - 10) % 1440, (minute + 30) % 1440)
    seen: dict[int, int | None] = {}

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        seen[segment.message.id] = segment.message.validity_s
        return await taken(channel, segment, gate)

    sims = {"a": Sim(schedules=(Schedule("s", "UTC", (window,), cut_validity=True, min_validity_ms=300_000),))}
    settings = DispatchSettings(urgent=UrgentSettings(ignore_windows=True, interval_s=0))
    async with hall(tmp_path, "a", sims=sims, settings=settings, script=script, clock=clock) as h:
        await h.ready()
        (alert,) = await h.send("x", class_=MessageClass.ALERT)
        (other,) = await h.send("x", first=1)
        await h.settled()
        assert seen[alert] is None
        assert 1700 < (seen[other] or 0) <= 1800


async def test_of_a_draining_channel_it_is_said_what_is_true(tmp_path: Path) -> None:
    """The rest of what it has begun goes out: that it drains is no obstacle to it."""
    async with hall(tmp_path, "a", pacing=Pacing(3600)) as h:
        await h.ready()
        (long,) = await h.send("xx")
        await h.until(lambda: len(h.network.sent) == 1)
        await h.until(lambda: h.dispatcher.channels()[0].next_start_in_s > 0)
        await h.dispatcher.set_channel_mode("a", DRAINING, "root", "")
        assert "may send again in" in await h.why(long)
