"""Why a channel does not take a message now, in words. Pure: made of what `eligibility` says and of the channel."""

from __future__ import annotations

from collections.abc import Callable

from gatewayd.clock import iso
from gatewayd.model import ChannelState
from gatewayd.router.channeltask import ChannelTask
from gatewayd.router.control import Serving
from gatewayd.router.eligibility import Shut, Why
from gatewayd.spool.quota import RECIPIENTS, Spent


def obstacle(
    task: ChannelTask,
    shut: Shut | None,
    now_ms: int,
    now_s: float,
    shown: Callable[[float], str],
    *,
    urgent: bool = False,
) -> Serving:
    """What keeps this channel from a message of a lane; `shut` is what eligibility says of the two. The obstacle is
    named that lasts longest: an operator's word before a device that is down, and that before a pause of seconds.

    `shown` writes a monotonic moment as people read it. `urgent`: it keeps the spacing of urgent messages.
    """
    name = task.name
    if shut is not None and shut.why in (Why.PAUSED, Why.DRAINING):
        return Serving(name, f"{name} is {task.mode_reason}")
    if task.leaving:
        return Serving(name, f"{name} is being removed or changed by a reload")
    status = task.supervisor.status()
    if status.state is not ChannelState.READY:
        reason = f": {status.reason}" if status.reason else ""
        since = f" since {_time(status.since_ms)}" if status.since_ms else ""
        return Serving(name, f"{name} is {status.state.value}{since}{reason}")
    if task.spent is not None and now_ms < task.spent.until_ms:
        return Serving(name, f"{name}: {spent_sentence(task.spent)}", task.spent.until_ms)
    if shut is not None and shut.why is not Why.PACE:
        return Serving(name, _sentence(task, shut), shut.until_ms)
    if task.breaker.stopped_s(now_s) > 0:
        return Serving(name, f"{name} is {task.breaker.reason(now_s, shown)}")
    if task.in_hand is not None:
        return Serving(name, f"{name} is busy with message {task.in_hand.message_id}", busy=True)
    kept = task.urgent if urgent else task.pace
    wait_s = max(kept.wait_s(now_s), task.breaker.wait_s(now_s))
    if wait_s > 0:
        slow = task.breaker.reason(now_s, shown)
        pace = slow or f"paced to one segment every {_span(kept.interval_s)}"
        return Serving(name, f"channel {name} ({pace}) may send again in {_span(wait_s)}", busy=True)
    return Serving(name, "")


def spent_sentence(spent: Spent) -> str:
    """Which quota is used up, and until when."""
    what = "recipients per month" if spent.period == RECIPIENTS else f"segments per {spent.period}"
    return f"its SIM's quota of {spent.limit} {what} is spent until {_time(spent.until_ms)}"


def _sentence(task: ChannelTask, shut: Shut) -> str:
    until = f" until {_time(shut.until_ms)}" if shut.until_ms is not None else ""
    name = task.name
    if shut.why is Why.CLOCK:
        return shut.detail
    if shut.why is Why.WINDOW:
        return f"{name}: its schedule {shut.detail} is closed{until or ' and does not open again'}"
    if shut.why is Why.NO_DIALER:
        return f"its dialer {shut.detail} is not in the configuration"
    if shut.why is Why.DIALER_OFF:
        return f"its dialer {shut.detail} is not enabled"
    if shut.why is Why.DIALER_WINDOW:
        return f"the schedule {shut.detail} of its dialer is closed{until or ' and does not open again'}"
    if shut.why is Why.RECIPIENT_WINDOW:
        where = f" ({shut.detail})" if shut.detail else ""
        return f"it is not the time to write to the recipient{where}{until}"
    if shut.why is Why.DIALER_PACE:
        return f"its dialer {shut.detail} keeps its interval: it may start a message again in {_span(shut.in_s)}"
    if shut.why is Why.DIALER_STARTING:
        return f"its dialer {shut.detail} is about to start another message"
    if shut.why is Why.FAILOVER:
        return f"{name} stands in only when {shut.detail} cannot send"
    if shut.why is Why.TURN:
        return f"it is the turn of channel {shut.detail}"
    if shut.why is Why.NO_ROOM and task.spent_for_new is not None:
        return f"{name}: {spent_sentence(task.spent_for_new)}"
    return f"{name} does not serve it"


def _time(epoch_ms: int) -> str:
    return f"{(iso(epoch_ms) or '')[:19].replace('T', ' ')} UTC"


def _span(seconds: float) -> str:
    return f"{round(seconds, 1):g} s" if seconds < 10 else f"{seconds:.0f} s"
