"""Which lane is open to which channel now; and if it is not, why, and when to look again.

One place decides: a claim asks it for each lane, the wake-ups ask it, and `explain` makes its sentences of the same
answers. It is asked by the writer's thread too, so it only reads what the event loop replaces as a whole.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache

from gatewayd.clock import Clock
from gatewayd.router.channeltask import ChannelTask
from gatewayd.router.pacing import Pace
from gatewayd.router.routes import SOURCE_OF_DIALER
from gatewayd.router.target import Kind, Target, Tier, parse
from gatewayd.router.windows import Schedule
from gatewayd.spool.channel_modes import DRAINING, PAUSED
from gatewayd.spool.lanes import Lane
from gatewayd.spool.quota import SimQuota, Spent
from gatewayd.spool.work import PREFER

ALERT = "class:alert"  # the source of the urgent lane
HOUR_S = 3600.0
DOUBT_AGAIN_S = 10.0  # a doubt that came and went between two looks at the clock is told to nobody


@dataclass(frozen=True, slots=True)
class DialerSettings:
    """What a dialer may do. `recipient`: the schedule that is read in the recipients' own time zones."""

    name: str
    target: Target = field(default_factory=Target)
    enabled: bool = True
    schedule: Schedule | None = None
    recipient: Schedule | None = None
    interval_s: float = 0.0
    jitter_s: float = 0.0
    burst: int = 1
    turn_patience_s: float = 30.0


@dataclass(frozen=True, slots=True)
class UrgentSettings:
    """What messages of class alert may do: go first, `interval_s` apart on each channel instead of by its own pace, at
    most `per_hour` over all of them; beyond that they are as others.
    """

    ignore_windows: bool = False
    interval_s: float = 1.0
    per_hour: int = 60


@dataclass(frozen=True, slots=True)
class DispatchSettings:
    """What eligibility depends on. `order`: all channels of the configuration, by which dial strings count.

    `failover_after_s`: so long a tier is waited for that is down.
    """

    dialers: Mapping[str, DialerSettings] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    failover_after_s: float = 30.0
    turn_patience_s: float = 30.0
    urgent: UrgentSettings = field(default_factory=UrgentSettings)


class Why(Enum):
    """Why a lane is closed to a channel."""

    OTHERS = "others"  # it is for other channels
    PAUSED = "paused"
    DRAINING = "draining"
    CLOCK = "clock"
    WINDOW = "window"  # of the channel or its SIM
    NO_DIALER = "no dialer"
    DIALER_OFF = "dialer off"
    DIALER_WINDOW = "dialer window"
    RECIPIENT_WINDOW = "recipient window"
    DIALER_PACE = "dialer pace"
    DIALER_STARTING = "dialer starting"  # another channel is about to start one of its messages
    FAILOVER = "failover"  # channels before this one can serve it
    TURN = "turn"  # it is another's
    NO_ROOM = "no room"  # in a quota of the SIM, for new recipients or for so many segments
    PACE = "pace"


@dataclass(frozen=True, slots=True)
class Shut:
    """A lane is closed to a channel. `again_s`: monotonic time to look again (None: an event tells). `until_ms`: when
    it opens by the wall clock, if that is known. `detail`: a name that belongs to it. `in_s`: so long it takes, where
    no alarm is needed for it.
    """

    why: Why
    again_s: float | None = None
    until_ms: int | None = None
    detail: str = ""
    in_s: float = 0.0


OTHERS = Shut(Why.OTHERS)
_FOR_LONG = frozenset({Why.OTHERS, Why.PAUSED, Why.DRAINING, Why.NO_DIALER})


class Starts:
    """The pace of a dialer over all its channels. `held_by`: the channel that has claimed and not started yet."""

    __slots__ = ("held_by", "pace")

    def __init__(self, settings: DialerSettings) -> None:
        self.pace = Pace(settings.interval_s, settings.jitter_s, settings.burst, random.random)
        self.held_by = ""


@dataclass(slots=True)
class _Waited:
    """Whom a turn waits for: the port it was given to last, and since when each of the following is waited for."""

    last: int
    asked_s: float
    since: dict[int, float] = field(default_factory=dict)


@lru_cache(maxsize=4096)
def split(target: str) -> tuple[int, Target]:
    """The SIM a message should go out by if it can (0: none), and its target."""
    if target.startswith(PREFER):
        sim_id, _, rest = target.removeprefix(PREFER).partition(":")
        return int(sim_id), parse(rest)
    return 0, parse(target)


class Eligibility:
    """The rules of one daemon. `tasks` and `turns` are the dispatcher's and the spool's own, looked at as they are."""

    def __init__(
        self,
        settings: DispatchSettings,
        tasks: Mapping[str, ChannelTask],
        turns: Mapping[str, int],
        clock: Clock,
        doubt: Callable[[int], str],
    ) -> None:
        self._tasks = tasks
        self._turns = turns
        self._clock = clock
        self._doubt = doubt
        self._begun_s = clock.monotonic()
        self._waited: dict[str, _Waited] = {}  # by the turn's key
        self._alerts: list[float] = []  # when alerts started, as many as the cap; changed by the event loop only
        self.starts: dict[str, Starts] = {}
        self.settings = settings
        self.configure(settings)

    def configure(self, settings: DispatchSettings) -> None:
        """Work by other settings from now on; what dialers have started still counts, also when they come back."""
        starts = dict(self.starts)
        for name, dialer in settings.dialers.items():
            kept = self.starts.get(name)
            if kept is None:
                kept = Starts(dialer)
            kept.pace.become(dialer.interval_s, dialer.jitter_s, dialer.burst)
            starts[name] = kept
        self.settings, self.starts = settings, starts

    # Alerts.

    def urgent(self, now_s: float) -> bool:
        """Whether alerts may still go ahead of all others: their cap is not used up."""
        most, alerts = self.settings.urgent.per_hour, self._alerts
        return most > 0 and (len(alerts) < most or alerts[-most] <= now_s - HOUR_S)

    def alert_started(self, at_s: float) -> None:
        self._alerts = [*self._alerts, at_s][-max(1, self.settings.urgent.per_hour) :]

    # Lanes.

    def dialer_of(self, lane: Lane) -> DialerSettings | None:
        return self.settings.dialers.get(lane.source.removeprefix(SOURCE_OF_DIALER)) if _is_dialer(lane) else None

    def target_of(self, lane: Lane) -> tuple[int, Target]:
        """The preferred SIM and the target of a lane; a dialer's is the one it has now."""
        prefer, target = split(lane.target)
        if target.dialer:
            dialer = self.dialer_of(lane)
            target = Target() if dialer is None else dialer.target
        return prefer, target

    def shut(
        self, task: ChannelTask, lane: Lane, now_ms: int, now_s: float, *, paced: bool = False, looks: bool = False
    ) -> Shut | None:
        """Why `lane` is closed to `task` now; None: it is open. `paced`: the channel's own pace does not allow a start,
        so only urgent lanes can be open. `looks`: somebody only wants to know, so nothing begins to be waited for.
        """
        if not lane.open_to(task.name, task.sim_id):
            return OTHERS
        if task.mode == PAUSED:
            return Shut(Why.PAUSED, detail=task.mode_reason)
        if task.mode == DRAINING and not lane.sim_id:
            return Shut(Why.DRAINING, detail=task.mode_reason)
        urgent = lane.source == ALERT and self.urgent(now_s)
        if paced and not urgent:
            return Shut(Why.PACE, again_s=now_s + task.pace.wait_s(now_s))
        if (full := _no_room(task, lane, now_ms)) is not None:
            return self._until(Why.NO_ROOM, full.until_ms, now_ms, now_s, full.period)
        ignores = urgent and self.settings.urgent.ignore_windows
        if not ignores and (closed := self._out_of_time(task, lane, now_ms, now_s)) is not None:
            return closed
        if _is_dialer(lane) and (closed := self._dialer_shut(task, lane, now_ms, now_s)) is not None:
            return closed
        if lane.sim_id or lane.channel:
            return None  # bound already: no route has a say
        return self._elsewhere(task, lane, now_ms, now_s, ignores, looks)

    def reaches(self, task: ChannelTask, lane: Lane) -> bool:
        """Whether a channel serves a lane at all, now or at another time."""
        if not lane.open_to(task.name, task.sim_id):
            return False
        prefer, target = self.target_of(lane)
        if lane.sim_id or lane.channel or (prefer and prefer == task.sim_id):
            return True
        if target.ports is not None:
            return any(name == task.name for _, name in self.ports(target))
        return any(_in(task, tier) for tier in target.tiers)

    def _out_of_time(self, task: ChannelTask, lane: Lane, now_ms: int, now_s: float) -> Shut | None:
        dialer = self.dialer_of(lane)
        windowed = bool(task.schedules) or (dialer is not None and (dialer.schedule or dialer.recipient))
        if (windowed or _by_calendar(task.quota)) and (doubt := self._doubt(now_ms)):
            return Shut(Why.CLOCK, now_s + DOUBT_AGAIN_S, detail=doubt)
        for schedule in task.schedules:
            if not schedule.claimable(now_ms):
                return self._until(Why.WINDOW, schedule.claimable_at(now_ms), now_ms, now_s, schedule.name)
        return None

    def _dialer_shut(self, task: ChannelTask, lane: Lane, now_ms: int, now_s: float) -> Shut | None:
        name = lane.source.removeprefix(SOURCE_OF_DIALER)
        dialer = self.settings.dialers.get(name)
        if dialer is None:  # the rest of what has begun goes out all the same
            return None if lane.sim_id else Shut(Why.NO_DIALER, detail=name)
        if dialer.schedule is not None and not dialer.schedule.claimable(now_ms):
            until = dialer.schedule.claimable_at(now_ms)
            return self._until(Why.DIALER_WINDOW, until, now_ms, now_s, dialer.schedule.name)
        if dialer.recipient is not None and not dialer.recipient.claimable(now_ms, lane.zone):
            until = dialer.recipient.claimable_at(now_ms, lane.zone)
            return self._until(Why.RECIPIENT_WINDOW, until, now_ms, now_s, lane.zone)
        if lane.sim_id:
            return None  # the rest of what has begun
        if not dialer.enabled:
            return Shut(Why.DIALER_OFF, detail=name)
        starts = self.starts[name]
        if starts.pace.interval_s > 0:
            if starts.held_by not in {"", task.name}:
                return Shut(Why.DIALER_STARTING, detail=name)
            if (wait_s := starts.pace.wait_s(now_s)) > 0:
                return Shut(Why.DIALER_PACE, detail=name, in_s=wait_s)  # its own timer wakes one channel
        return None

    def _until(self, why: Why, until_ms: int | None, now_ms: int, now_s: float, detail: str = "") -> Shut:
        again = None if until_ms is None else now_s + max(0, until_ms - now_ms) / 1000
        return Shut(why, again, until_ms, detail)

    # Where to: tiers and turns.

    def _elsewhere(
        self, task: ChannelTask, lane: Lane, now_ms: int, now_s: float, ignores: bool, looks: bool
    ) -> Shut | None:
        prefer, target = self.target_of(lane)
        if target.ports is not None:
            return self._out_of_turn(task, lane, target, now_ms, now_s, looks)
        tiers = target.tiers
        if prefer:
            tiers = (Tier(Kind.SIM, str(prefer)), *tiers)
        first: tuple[Tier, float] | None = None
        for tier in tiers:
            if _in(task, tier):
                return None if first is None else Shut(Why.FAILOVER, first[1] or None, detail=first[0].text)
            waits = self._tier_serves(tier, lane, now_ms, now_s, ignores) if first is None else None
            if waits is not None:
                first = tier, waits
        return OTHERS

    def _tier_serves(self, tier: Tier, lane: Lane, now_ms: int, now_s: float, ignores: bool) -> float | None:
        """None: nothing of this tier can serve the lane, so the next one may. Else until when it is waited for
        (monotonic seconds), 0 as long as nothing changes.
        """
        members = [task for task in list(self._tasks.values()) if _in(task, tier)]  # a reload adds and removes some
        waits: float | None = None
        if not members:
            gone = self._begun_s + self.settings.failover_after_s  # at the start they may still be on their way
            return gone if tier.kind is not Kind.CHANNEL and gone > now_s else None
        for task in members:
            if not lane.open_to(task.name, task.sim_id) or not self._willing(task, lane, now_ms, now_s, ignores):
                continue
            if task.usable is not None:
                return 0
            since = task.down_since
            until = (now_s if since is None else since) + self.settings.failover_after_s
            if until > now_s:
                waits = until if waits is None else max(waits, until)
        return waits

    def _willing(self, task: ChannelTask, lane: Lane, now_ms: int, now_s: float, ignores: bool) -> bool:
        """Whether a channel would take the lane as soon as it is up and free."""
        if task.mode or task.leaving or task.breaker.stopped_s(now_s) > 0:
            return False
        if task.spent is not None and now_ms < task.spent.until_ms:
            return False
        if _no_room(task, lane, now_ms) is not None:
            return False
        return ignores or self._out_of_time(task, lane, now_ms, now_s) is None

    # Strict turn.

    def turn_key(self, lane: Lane) -> str:
        """Whose turn it is: a dialer's own, or that of all who use the same dial string."""
        return lane.source if _is_dialer(lane) else split(lane.target)[1].text

    def ports(self, target: Target) -> list[tuple[int, str]]:
        """The dial string's ports and the channels they are."""
        names = [name for name in self.settings.order if not target.group or self._carries(name, target.group)]
        return [(port, names[port]) for port in target.ports or () if port < len(names)]

    def _carries(self, name: str, tag: str) -> bool:
        task = self._tasks.get(name)
        return task is not None and tag in task.tags

    def _out_of_turn(
        self, task: ChannelTask, lane: Lane, target: Target, now_ms: int, now_s: float, looks: bool
    ) -> Shut | None:
        key = self.turn_key(lane)
        following = self._following(key, target)
        if all(name != task.name for _, name in following):
            return OTHERS
        patience = self._patience(lane)
        waited = self._waiting(key, now_s, patience, looks)
        for port, name in following:
            other = self._tasks.get(name)
            if other is task:
                return None
            if other is None or other.usable is None or not lane.open_to(other.name, other.sim_id):
                continue
            if not self._willing(other, lane, now_ms, now_s, False):
                continue
            until = waited.setdefault(port, now_s) + patience
            if now_s < until:
                return Shut(Why.TURN, until, detail=name)
        return OTHERS

    def _patience(self, lane: Lane) -> float:
        dialer = self.dialer_of(lane)
        return self.settings.turn_patience_s if dialer is None else dialer.turn_patience_s

    def _following(self, key: str, target: Target) -> list[tuple[int, str]]:
        """The ports in the order of their turns, the next one first."""
        ports = self.ports(target)
        last = self._turns.get(key)
        at = next((index for index, (port, _) in enumerate(ports) if port == last), -1) + 1
        return ports[at:] + ports[:at]

    def _waiting(self, key: str, now_s: float, patience: float, looks: bool) -> dict[int, float]:
        """Since when which port is waited for. It begins anew with each move of the turn, and after a time in which
        nobody asked: then nothing was waiting.
        """
        last = self._turns.get(key, -1)
        waited = self._waited.get(key)
        if waited is None or waited.last != last or now_s - waited.asked_s > patience + 1:
            waited = _Waited(last, now_s)
            if not looks:
                self._waited[key] = waited
        if looks:
            return dict(waited.since)
        waited.asked_s = now_s
        return waited.since

    def my_turn(self, task: ChannelTask, lane: Lane) -> tuple[str, int, tuple[str, ...]] | None:
        """For a lane of which a message is begun: the key of its dial string's turn, the port of this channel, and the
        channels passed over that were waited for. None without a dial string.
        """
        if lane.sim_id or lane.channel:
            return None
        _, target = self.target_of(lane)
        if target.ports is None:
            return None
        key = self.turn_key(lane)
        waited = self._waited.pop(key, None)  # the turn moves now, and waiting begins anew
        passed: list[str] = []
        for port, name in self._following(key, target):
            if name == task.name:
                return key, port, tuple(passed)
            other = self._tasks.get(name)
            if waited is not None and port in waited.since and other is not None and other.usable is not None:
                passed.append(name)
        return None

    def alternatives(self, task: ChannelTask, lane: Lane) -> bool:
        """Whether an untouched message of the lane could go over another channel now that this one's SIM must not."""
        if lane.channel:
            return False
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic()
        free = replace(lane, sim_id=0, avoid_sim_id=task.sim_id)
        for other in list(self._tasks.values()):
            if other is task or other.sim_id == task.sim_id or other.usable is None or other.leaving:
                continue
            shut = self.shut(other, free, now_ms, now_s)
            if shut is None or shut.why not in _FOR_LONG:
                return True
        return False

    def sticky(self, lane: Lane) -> bool:
        """Whether later messages to the same number are to come from the same SIM."""
        return self.target_of(lane)[1].sticky

    def closed_now(self, task: ChannelTask, lane: Lane, now_ms: int) -> str:
        """For what was claimed and is about to be written: the schedule that has closed since; "" if none has."""
        now_s = self._clock.monotonic()
        if lane.source == ALERT and self.settings.urgent.ignore_windows and self.urgent(now_s):
            return ""
        dialer = self.dialer_of(lane)
        asked = [(schedule, "") for schedule in task.schedules]
        if dialer is not None and dialer.schedule is not None:
            asked.append((dialer.schedule, ""))
        if dialer is not None and dialer.recipient is not None:
            asked.append((dialer.recipient, lane.zone))
        return next((schedule.name for schedule, zone in asked if not schedule.is_open(now_ms, zone)), "")

    def closes_at(self, task: ChannelTask, lane: Lane, now_ms: int) -> int | None:
        """When the validity given to the network has to end (epoch ms), where a schedule asks for that."""
        if lane.source == ALERT and self.settings.urgent.ignore_windows and self.urgent(self._clock.monotonic()):
            return None
        ends = [_cut(schedule, now_ms) for schedule in task.schedules]
        dialer = self.dialer_of(lane)
        if dialer is not None and dialer.schedule is not None:
            ends.append(_cut(dialer.schedule, now_ms))
        if dialer is not None and dialer.recipient is not None:
            ends.append(_cut(dialer.recipient, now_ms, lane.zone))
        return min((end for end in ends if end is not None), default=None)

    # What is claimed and started.

    def took(self, task: ChannelTask, lane: Lane) -> str:
        """A message of the lane is claimed and will be started: its dialer starts no other until then. Returns under
        which name that start is to be remembered ("": under none, nothing is paced by it).
        """
        starts = self.starts.get(lane.source.removeprefix(SOURCE_OF_DIALER)) if _is_dialer(lane) else None
        if starts is None or starts.pace.interval_s <= 0:
            return ""
        starts.held_by = task.name
        return lane.source

    def resume(self, source: str, at_s: float) -> None:
        """What the spool knows of a time before this daemon's: when a dialer started its last message (monotonic)."""
        starts = self.starts.get(source.removeprefix(SOURCE_OF_DIALER))
        if starts is not None:
            starts.pace.resume(at_s)

    def paced_s(self, dialer: str, now_s: float) -> float:
        """How long (seconds) until a dialer may start a message; 0: at once."""
        starts = self.starts.get(dialer)
        return 0.0 if starts is None else starts.pace.wait_s(now_s)

    def started(self, task: ChannelTask, lane: Lane, at_s: float) -> float | None:
        """The first segment of a message has started. Returns when its dialer may start the next (monotonic)."""
        starts = self.starts.get(lane.source.removeprefix(SOURCE_OF_DIALER)) if _is_dialer(lane) else None
        if starts is None or starts.held_by != task.name:
            return None
        starts.pace.started(at_s)
        starts.held_by = ""
        return at_s + starts.pace.wait_s(at_s)

    def let_go(self, task: ChannelTask, dialer: str = "") -> list[str]:
        """The channel has not started what it claimed, but for `dialer`; the dialers that may start another."""
        freed = []
        for name, starts in self.starts.items():
            if name != dialer and starts.held_by == task.name:
                starts.held_by = ""
                freed.append(name)
        return freed


def of_dialer(name: str) -> Lane:
    """A lane that stands for all of a dialer's, to ask who could serve it."""
    return Lane(0, SOURCE_OF_DIALER + name, "dialer", "", 0, 0)


def _is_dialer(lane: Lane) -> bool:
    return lane.source.startswith(SOURCE_OF_DIALER)


def _no_room(task: ChannelTask, lane: Lane, now_ms: int) -> Spent | None:
    """The quota of the channel's SIM that has no room for a message that was refused for want of room before; None: it
    may have.
    """
    full = task.spent_for_new
    if full is None or now_ms >= full.until_ms or lane.avoid_sim_id >= 0:
        return None
    if lane.avoid_sim_id != -task.sim_id and split(lane.target)[0] == task.sim_id:
        return None  # another SIM left it to this one, which knows the number
    return full


def _cut(schedule: Schedule, now_ms: int, zone: str = "") -> int | None:
    return schedule.closes_at(now_ms, zone) if schedule.cut_validity else None


def _by_calendar(quota: SimQuota) -> bool:
    """Whether it counts by days or months, which a wrong clock would miss."""
    return not quota.per_day is quota.per_month is quota.recipients_per_month is None


def _in(task: ChannelTask, tier: Tier) -> bool:
    if tier.kind is Kind.ANY:
        return True
    if tier.kind is Kind.CHANNEL:
        return task.name == tier.name
    if tier.kind is Kind.GROUP:
        return tier.name in task.tags
    return task.sim_id == tier.sim_id
