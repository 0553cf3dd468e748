"""Who may send what when: turns, tiers, dialers, windows, quotas, urgent messages, an operator's word.

A real spool and the real dispatcher; the channels do as they are told. What counts is what the spool says was handed to
whom, in which order, and when it started. Where that hangs on SQL, on both engines.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gatewayd.clock import SystemClock
from gatewayd.errors import SubmitError
from gatewayd.model import FailureClass, MessageClass, Outcome, Receipt, Segment
from gatewayd.router import dispatcher as dispatcher_module
from gatewayd.router.channeltask import Pacing, Sim
from gatewayd.router.dispatcher import Dispatcher
from gatewayd.router.eligibility import DialerSettings, DispatchSettings, UrgentSettings
from gatewayd.router.explain import explain
from gatewayd.router.target import parse
from gatewayd.router.windows import Schedule, Window
from gatewayd.spool.accept import NewMessage
from gatewayd.spool.channel_modes import DRAINING, PAUSED, WORKS
from gatewayd.spool.engine import open_database
from gatewayd.spool.lanes import Lane
from gatewayd.spool.quota import SimQuota
from gatewayd.spool.reader import Reader
from gatewayd.spool.retry import RetryPolicy
from gatewayd.spool.store import Store
from gatewayd.spool.work import Rules
from tests.router.test_dispatcher import Network, Rig, Script, Scripted, taken

ALL = frozenset(range(7))
ALWAYS = Window(ALL, 0, 1440)


class ShiftedClock(SystemClock):
    """The machine's clock, put forward or back by `shift_ms`."""

    def __init__(self) -> None:
        self.shift_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.shift_ms


@dataclass
class Hall(Rig):
    """A running dispatcher with settings. `doubt` is what is said of the clock."""

    clock: ShiftedClock = field(default_factory=ShiftedClock)
    doubt: str = ""
    url: str = ""

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        if self.url.startswith("sqlite:"):
            return super().rows(sql)
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            return connection.execute(sql).fetchall()  # type: ignore[arg-type]

    async def send(self, *texts: str, first: int = 0, **values: object) -> tuple[int, ...]:
        """Accept messages to numbers of their own."""
        messages = [
            NewMessage(
                to_given=f"+59899{first + n:06}", to=f"+59899{first + n:06}", text=text, alphabet="gsm7",
                segments=len(text), **values,  # type: ignore[arg-type]
            )
            for n, text in enumerate(texts)
        ]  # fmt: skip
        return (await self.store.accept(messages)).ids

    def intents(self) -> list[str]:
        """The channels that were given a segment, in the order of the commits."""
        return [str(row[0]) for row in self.rows("SELECT channel FROM events WHERE event = 'intent' ORDER BY id")]

    def starts(self) -> list[int]:
        """When submissions were started, epoch ms, in order."""
        rows = self.rows("SELECT started_at FROM attempts WHERE started_at IS NOT NULL ORDER BY started_at")
        return [int(str(row[0])) for row in rows]

    async def why(self, message_id: int) -> str:
        """What `explain` says of a message."""
        reader = Reader(open_database(self.url), self.clock)
        try:
            found = await reader.message(message_id)
            assert found is not None
            serving = self.dispatcher.serving(found.message.lane)
            return explain(found, self.dispatcher.channels(), self.dispatcher.paused(), self.clock.now_ms(), serving)
        finally:
            await reader.close()


@asynccontextmanager
async def hall(
    where: Path | str,
    *names: str,
    script: Script = taken,
    settings: DispatchSettings | None = None,
    sims: Mapping[str, Sim] | None = None,
    pacing: Pacing = Pacing(),  # noqa: B008 - frozen
    away: tuple[str, ...] = (),
    clock: ShiftedClock | None = None,
) -> AsyncIterator[Hall]:
    """A running dispatcher with the channels `names`; `away`: they do not come up before `network.up` says so.

    `where`: a folder for an SQLite spool, or the URL of a database.
    """
    url = where if isinstance(where, str) else f"sqlite:///{where}/spool.db"
    clock = clock or ShiftedClock()
    network = Network(script, up={name: asyncio.Event() for name in away})
    dispatcher: Dispatcher
    rules = Rules(RetryPolicy(backoff_ms=(1,)))
    store = Store(open_database(url), "gw1", clock, rules, on_commit=lambda notices: dispatcher.committed(notices))
    settings = settings or DispatchSettings(order=names)
    dispatcher = Dispatcher(store, clock, settings, doubt=lambda now_ms: made.doubt)
    made = Hall(store, dispatcher, network, Path(url.removeprefix("sqlite:///")), clock, url=url)
    for name in names:
        known = (sims or {}).get(name, Sim())
        dispatcher.add(
            name,
            lambda name=name: Scripted(name, network),  # type: ignore[misc]
            pacing=pacing,
            sims=lambda identity, known=known: known,  # type: ignore[misc]
        )
    await store.open()
    try:
        await dispatcher.start()
        yield made
    finally:
        await dispatcher.stop(0.1)
        await store.close()


def closed_now(clock: ShiftedClock, name: str = "office") -> Schedule:
    """A schedule that opens an hour or two from now, for an hour."""
    minute = clock.now_ms() // 60_000 % 1440
    return Schedule(name, "UTC", (Window(ALL, (minute + 90) % 1440, (minute + 150) % 1440),))


# Strict turn.


@pytest.mark.parametrize(("source", "target"), [("", "turn::(0.3)"), ("dialer:d", "dialer")])
async def test_a_dial_string_is_used_strictly_in_turn(database_url: str, source: str, target: str) -> None:
    """S4-28, decision 2: (0.3) is 0-1-2-3-0, however fast each channel is; over a restart too."""
    names = ("a", "b", "c", "d")
    dialer = DialerSettings("d", parse("turn::(0.3)"))
    settings = DispatchSettings(dialers={"d": dialer}, order=names)
    for messages in (7, 30):
        async with hall(database_url, *names, settings=settings) as h:
            await h.until(lambda h=h: len(h.network.sessions) == 4)  # type: ignore[misc]
            await h.ready()
            await h.send(*["x"] * messages, source=source, target=target)
            await h.settled()
            assert h.intents() == [names[n % 4] for n in range(len(h.intents()))]
    assert len(h.intents()) == 37


async def test_who_is_down_is_skipped_and_the_order_is_kept(database_url: str) -> None:
    async with hall(database_url, "a", "b", "c", away=("b",)) as h:
        await h.until(lambda: h.dispatcher.channels()[0].sim_id > 0 and h.dispatcher.channels()[2].sim_id > 0)
        await h.send(*["x"] * 6, target="turn::(0.2)")
        await h.settled()
        assert h.intents() in (["a", "c"] * 3, ["c", "a"] * 3)  # who was up first
        h.network.up["b"].set()
        await h.until(lambda: h.dispatcher.channels()[1].sim_id > 0)
        await h.ready()
        begun = len(h.intents())
        await h.send(*["x"] * 6, first=100, target="turn::(0.2)")
        await h.settled()
        last = "abc".index(h.intents()[begun - 1])
        assert h.intents()[begun:] == ["abc"[(last + 1 + n) % 3] for n in range(6)]


async def test_a_busy_one_is_waited_for_and_then_passed_over_with_an_event(database_url: str) -> None:
    stuck = asyncio.Event()

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        if segment.message.text == "s":
            await stuck.wait()
        return await taken(channel, segment, gate)

    settings = DispatchSettings(order=("a", "b"), turn_patience_s=0.2)
    async with hall(database_url, "a", "b", script=script, settings=settings) as h:
        await h.ready()
        await h.send("s", channel="b")
        await h.until(lambda: h.intents() == ["b"])
        ids = await h.send("x", "x", "x", first=10, target="turn::(0.1)")
        await h.until(lambda: h.intents() == ["b", "a", "a", "a"])
        passed = h.rows("SELECT message_id, channel FROM events WHERE event = 'turn passed over' ORDER BY id")
        assert passed == [(ids[1], "b"), (ids[2], "b")]
        first, second = h.starts()[-2:]
        assert second - first >= 195
        stuck.set()
        await h.settled()


async def test_what_is_not_sent_goes_to_the_next_in_turn_which_is_not_given_back(database_url: str) -> None:
    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        if channel.name == "b":
            raise SubmitError(Outcome.NOT_SENT, FailureClass.REJECTED, "no", code="CMS 69", started_ms=1)
        return await taken(channel, segment, gate)

    async with hall(database_url, "a", "b", "c", script=script) as h:
        await h.ready()
        first, second = await h.send("x", "x", target="turn::(0.2)")
        await h.settled()
        assert h.intents() == ["a", "b", "c"]
        assert [(channel, message) for channel, message, _ in h.network.sent] == [("a", first), ("c", second)]


# Tiers and senders.


async def test_the_second_place_serves_when_the_first_has_been_down_for_long_enough(tmp_path: Path) -> None:
    sims = {"a": Sim(tags=frozenset({"main"})), "b": Sim(tags=frozenset({"spare"}))}
    settings = DispatchSettings(order=("a", "b"), failover_after_s=0.3)
    async with hall(tmp_path, "a", "b", settings=settings, sims=sims) as h:
        await h.ready()
        await h.send(*["x"] * 20, target="group:main>group:spare")
        await h.settled()
        assert set(h.intents()) == {"a"}
        h.network.up["a"] = asyncio.Event()  # it does not come back
        h.network.sessions["a"].lost.set()
        await h.until(lambda: h.dispatcher.channels()[0].status.state.value != "ready")
        lost = h.clock.now_ms()
        await h.send("x", first=50, target="group:main>group:spare")
        await h.until(lambda: h.intents()[-1] == "b")
        assert h.clock.now_ms() - lost >= 250
        h.network.up["a"].set()
        await h.until(lambda: h.dispatcher.channels()[0].status.state.value == "ready")
        await h.ready()
        await h.send(*["x"] * 5, first=60, target="group:main>group:spare")
        await h.settled()
        assert h.intents()[-5:] == ["a"] * 5


async def test_a_contact_keeps_its_sender(database_url: str) -> None:
    async with hall(database_url, "a", "b", "c") as h:
        await h.ready()
        for _ in range(4):
            await h.send(*["x"] * 12, target="sticky:any")
            await h.settled()
        by_number: dict[object, set[object]] = {}
        for number, channel in h.rows("SELECT to_number, channel FROM messages"):
            by_number.setdefault(number, set()).add(channel)
        assert {len(channels) for channels in by_number.values()} == {1}
        assert len({next(iter(channels)) for channels in by_number.values()}) > 1, "not all by one channel"


# Dialers.


async def test_a_dialers_starts_keep_its_interval_over_all_channels(tmp_path: Path) -> None:
    """S4-32, DESIGN §6: whatever the channels do; other work goes on beside it."""
    dialer = DialerSettings("d", interval_s=0.04)
    async with hall(tmp_path, "a", "b", "c", settings=DispatchSettings(dialers={"d": dialer})) as h:
        await h.ready()
        paced = await h.send(*["x"] * 12, source="dialer:d", target="dialer")
        other = await h.send(*["x"] * 50, first=100)
        await h.settled()
        rows = h.rows(f"SELECT started_at FROM attempts WHERE message_id <= {paced[-1]} ORDER BY started_at")
        starts = [int(str(row[0])) for row in rows]
        assert all(later - earlier >= 40 for earlier, later in itertools.pairwise(starts))
        assert len({message for _, message, _ in h.network.sent}) == len(paced) + len(other)


async def test_after_a_pause_a_burst_and_then_the_interval(tmp_path: Path) -> None:
    dialer = DialerSettings("d", interval_s=0.1, burst=3)
    async with hall(tmp_path, "a", "b", settings=DispatchSettings(dialers={"d": dialer})) as h:
        await h.ready()
        await h.send(*["x"] * 6, source="dialer:d", target="dialer")
        await h.settled()
        starts = h.starts()
        assert all(starts[n] - starts[0] >= 100 * (n - 2) - 2 for n in range(3, 6))


async def test_sources_of_one_priority_take_turns_and_a_larger_priority_goes_first(database_url: str) -> None:
    dialers = {name: DialerSettings(name) for name in ("one", "two")}
    go = asyncio.Event()

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        await go.wait()
        return await taken(channel, segment, gate)

    async with hall(database_url, "a", script=script, settings=DispatchSettings(dialers=dialers)) as h:
        await h.ready()
        many = await h.send(*["x"] * 30, source="dialer:one", target="dialer")
        few = await h.send(*["x"] * 5, first=100, source="dialer:two", target="dialer")
        (high,) = await h.send("x", first=200, priority=5)
        go.set()
        await h.settled()
        order = [message for _, message, _ in h.network.sent]
        assert order[1] == high, "the first was in hand already"
        assert max(order.index(message) for message in few) <= 11
        assert [message for message in order if message in many] == list(many), "S4-38: each in order of entry"


# Urgent messages.


async def test_an_alert_keeps_its_own_spacing_and_a_cap_bounds_them(database_url: str) -> None:
    settings = DispatchSettings(urgent=UrgentSettings(interval_s=0.05, per_hour=3))
    async with hall(database_url, "a", settings=settings, pacing=Pacing(3600)) as h:
        await h.ready()
        await h.send("x")
        await h.settled()
        (waits,) = await h.send("x", first=1)
        alerts = await h.send(*["x"] * 4, first=10, class_=MessageClass.ALERT)
        await h.until(lambda: len(h.network.sent) == 4)
        assert [message for _, message, _ in h.network.sent[1:]] == list(alerts[:3])
        assert all(later - earlier >= 50 for earlier, later in itertools.pairwise(h.starts()[1:]))
        assert "may send again in" in await h.why(alerts[3])
        assert "may send again in" in await h.why(waits)


@pytest.mark.parametrize("ignores", [True, False])
async def test_an_alert_goes_out_of_hours_if_the_configuration_says_so(tmp_path: Path, ignores: bool) -> None:
    clock = ShiftedClock()
    sims = {"a": Sim(schedules=(closed_now(clock),))}
    settings = DispatchSettings(urgent=UrgentSettings(ignore_windows=ignores, interval_s=0))
    async with hall(tmp_path, "a", settings=settings, sims=sims, clock=clock) as h:
        await h.ready()
        (other,) = await h.send("x")
        (alert,) = await h.send("x", first=1, class_=MessageClass.ALERT)
        if ignores:
            await h.until(lambda: len(h.network.sent) == 1)
            assert h.network.sent[0][1] == alert
        assert "schedule office is closed until" in await h.why(other)
        assert ("schedule office is closed until" in await h.why(alert)) is not ignores


# Windows and the clock.


async def test_nothing_of_a_dialer_goes_out_of_hours_and_it_goes_on_when_they_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S4-25. The clock is put forward; the dispatcher notices at its next look."""
    monkeypatch.setattr(dispatcher_module, "CLOCK_CHECK_S", 0.05)
    clock = ShiftedClock()
    dialer = DialerSettings("d", schedule=closed_now(clock))
    async with hall(tmp_path, "a", settings=DispatchSettings(dialers={"d": dialer}), clock=clock) as h:
        await h.ready()
        ids = await h.send("x", "x", source="dialer:d", target="dialer")
        (other,) = await h.send("x", first=10)
        await h.until(lambda: len(h.network.sent) == 1)
        assert h.network.sent[0][1] == other
        assert "the schedule office of its dialer is closed until" in await h.why(ids[0])
        clock.shift_ms += 2 * 3_600_000
        await h.settled()
        assert {message for _, message, _ in h.network.sent} == {other, *ids}


async def test_recipients_are_written_to_in_their_own_hours(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_module, "CLOCK_CHECK_S", 0.05)
    clock = ShiftedClock()
    hour = clock.now_ms() // 3_600_000 % 24
    noon, night = _zone(12 - hour), _zone(0 - hour)
    dialer = DialerSettings("d", recipient=Schedule("decent", "UTC", (Window(ALL, 540, 1260),)))
    async with hall(database_url, "a", settings=DispatchSettings(dialers={"d": dialer}), clock=clock) as h:
        await h.ready()
        (sleeps,) = await h.send("x", source="dialer:d", target="dialer", zone=night)
        (awake,) = await h.send("x", first=1, source="dialer:d", target="dialer", zone=noon)
        await h.until(lambda: len(h.network.sent) == 1)
        assert h.network.sent[0][1] == awake
        assert f"it is not the time to write to the recipient ({night})" in await h.why(sleeps)
        clock.shift_ms += 12 * 3_600_000
        await h.settled()


def _zone(offset: int) -> str:
    """A zone that is so many hours ahead of UTC. The names of Etc/GMT count the other way."""
    offset = (offset + 12) % 24 - 12
    return "Etc/GMT" if offset == 0 else f"Etc/GMT{-offset:+d}"


async def test_work_with_a_window_or_a_daily_quota_waits_while_the_clock_is_in_doubt(tmp_path: Path) -> None:
    """DESIGN §6: and says so; other work goes on."""
    sims = {
        "a": Sim(schedules=(Schedule("always", "UTC", (ALWAYS,)),)),
        "b": Sim(quota=SimQuota(per_day=10)),
        "c": Sim(),
    }
    async with hall(tmp_path, "a", "b", "c", sims=sims) as h:
        h.doubt = "the clock reads 1970"
        await h.ready()
        windowed, counted = await h.send("x", channel="a"), await h.send("x", first=1, channel="b")
        (free,) = await h.send("x", first=2)
        await h.until(lambda: len(h.network.sent) == 1)
        assert h.network.sent == [("c", free, 1)]
        for message in (*windowed, *counted):
            assert "the clock reads 1970" in await h.why(message)
        h.doubt = ""
        h.dispatcher.configure(DispatchSettings())
        await h.settled()


# Quotas.


async def test_a_spent_sim_leaves_the_rest_to_the_next_and_counts_over_a_restart(database_url: str) -> None:
    """Promise 8: per SIM, in segments, persisted; an untouched message moves to the next SIM by itself."""
    sims = {"a": Sim(quota=SimQuota(per_day=3)), "b": Sim(quota=SimQuota(per_day=5))}
    async with hall(database_url, "a", "b", sims=sims) as h:
        await h.send(*["x"] * 6)
        await h.settled()
    async with hall(database_url, "a", "b", sims=sims) as h:
        ids = await h.send(*["x"] * 6, first=100)
        await h.until(lambda: len(h.network.sent) == 2)
        await h.until(lambda: sum("spent until" in str(h.dispatcher.serving(lane_of(h, m))) for m in ids) == 6)
        assert sorted(h.intents()) == ["a"] * 3 + ["b"] * 5
        waiting = [row[0] for row in h.rows("SELECT id FROM messages WHERE state = 1 ORDER BY id")]
        assert waiting == list(ids[2:])
        assert "quota of 3 segments per day is spent until" in await h.why(ids[-1])
        assert h.rows("SELECT day_used FROM sim_usage ORDER BY day_used") == [(3,), (5,)]


def lane_of(h: Hall, message_id: int) -> Lane:
    """The queue a message stands in."""
    (row,) = h.rows(
        "SELECT l.id, l.source, l.target, l.channel, l.sim_id, l.avoid_sim_id, l.zone FROM lanes l "
        f"JOIN messages m ON m.lane_id = l.id WHERE m.id = {message_id}"
    )
    return Lane(*row)  # type: ignore[arg-type]


async def test_what_was_not_sent_is_not_counted(database_url: str) -> None:
    failed = []

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        if segment.message.id not in failed:
            failed.append(segment.message.id)
            raise SubmitError(Outcome.NOT_SENT, FailureClass.UNKNOWN, "no", code="CMS 500", started_ms=1)
        return await taken(channel, segment, gate)

    sims = {"a": Sim(quota=SimQuota(per_day=3, recipients_per_month=3))}
    async with hall(database_url, "a", sims=sims, script=script) as h:
        await h.send(*["x"] * 3)
        await h.settled()
        assert len(h.network.sent) == 3
        assert h.rows("SELECT day_used, recipients FROM sim_usage") == [(3, 3)]


async def test_a_sim_that_may_write_to_nobody_new_writes_to_those_it_knows(database_url: str) -> None:
    sims = {"a": Sim(quota=SimQuota(recipients_per_month=2)), "b": Sim(quota=SimQuota(recipients_per_month=1))}
    async with hall(database_url, "a", "b", sims=sims) as h:
        await h.ready()
        await h.send("x", "x", channel="a")
        await h.settled()
        new = await h.send(*["x"] * 4, first=100)
        await h.until(lambda: len(h.network.sent) == 3)
        assert h.network.sent[2][0] == "b"
        known = await h.send("x", "x", channel="a")
        await h.until(lambda: len(h.network.sent) == 5)
        assert {message for _, message, _ in h.network.sent[3:]} == set(known)
        await h.until(lambda: len(h.rows("SELECT id FROM messages WHERE state = 1")) == 3)
        stays = [row[0] for row in h.rows("SELECT id FROM messages WHERE state = 1 ORDER BY id")]
        assert set(stays) < set(new)
        assert "recipients per month is spent until" in await h.why(int(str(stays[0])))


async def test_a_long_text_that_does_not_fit_stops_no_short_one(database_url: str) -> None:
    sims = {"a": Sim(quota=SimQuota(per_day=4))}
    async with hall(database_url, "a", sims=sims) as h:
        await h.ready()
        await h.send("x", "x")
        await h.settled()
        (long,) = await h.send("xxx", first=10)
        short = await h.send("x", "x", first=20)
        await h.until(lambda: len(h.network.sent) == 4)
        assert {message for _, message, _ in h.network.sent[2:]} == set(short)
        assert "segments per day is spent until" in await h.why(long)


# An operator's word.


async def test_a_paused_channel_takes_nothing_and_a_draining_one_finishes_what_it_began(database_url: str) -> None:
    step = asyncio.Semaphore(0)

    async def script(channel: Scripted, segment: Segment, gate: Callable[[], bool]) -> Receipt:
        await step.acquire()
        return await taken(channel, segment, gate)

    async with hall(database_url, "a", script=script) as h:
        await h.ready()
        (long,) = await h.send("xxx")
        (short,) = await h.send("x", first=1)
        await h.until(lambda: h.intents() == ["a"])
        await h.dispatcher.set_channel_mode("a", DRAINING, "root", "new SIM")
        for _ in range(3):
            step.release()
        await h.until(lambda: len(h.network.sent) == 3)
        await h.ready()
        assert {message for _, message, _ in h.network.sent} == {long}
        assert "draining by root at" in await h.why(short)
        await h.dispatcher.set_channel_mode("a", PAUSED, "root", "")
    step.release()
    async with hall(database_url, "a", script=script) as h:
        await h.until(lambda: h.dispatcher.channels()[0].sim_id > 0)
        assert "paused by root at" in await h.why(short), "it is durable"
        assert h.network.sent == []
        await h.dispatcher.set_channel_mode("a", WORKS, "root", "")
        await h.settled()
        assert h.rows("SELECT actor, action FROM audit ORDER BY id") == [
            ("root", "channel drain"), ("root", "channel pause"), ("root", "channel resume"),
        ]  # fmt: skip


async def test_messages_of_a_dialer_that_is_gone_or_off_wait_and_say_so(tmp_path: Path) -> None:
    async with hall(tmp_path, "a") as h:
        await h.ready()
        (lost,) = await h.send("x", source="dialer:d", target="dialer")
        (other,) = await h.send("x", first=1)
        await h.until(lambda: len(h.network.sent) == 1)
        assert h.network.sent[0][1] == other
        assert "its dialer d is not in the configuration" in await h.why(lost)
        h.dispatcher.configure(DispatchSettings(dialers={"d": DialerSettings("d", enabled=False)}))
        assert "its dialer d is not enabled" in await h.why(lost)
        h.dispatcher.configure(DispatchSettings(dialers={"d": DialerSettings("d")}))
        await h.settled()
