"""Why a message is where it is, in one sentence. Pure: the message as read from the spool, the channels as they are."""

from __future__ import annotations

from collections.abc import Sequence

from gatewayd.clock import iso
from gatewayd.model import ChannelState, Delivery, InDoubtPolicy, MessageState
from gatewayd.model import SegmentState as S
from gatewayd.modems.pdu import status_text
from gatewayd.router.control import ChannelView, Serving
from gatewayd.spool import schema
from gatewayd.spool.reader import AHEAD_LIMIT, EventView, MessageDetail, SegmentView

_CHANNELS_NAMED = 4  # of several that are not ready

Channels = Sequence[ChannelView] | None


def explain(
    detail: MessageDetail, channels: Channels, paused: str, now_ms: int, serving: Sequence[Serving] | None = None
) -> str:
    """One true sentence about a message at `now_ms` (UTC epoch milliseconds).

    `channels` None: the daemon is not running. `paused` says why nothing is sent, "" while sending is on. `serving`:
    the channels that serve its queue, and what keeps each from it now (None: not known, so only their states count).
    """
    message = detail.message
    if message.state is MessageState.TO_PROCESS:
        sentence = _to_process(detail, channels, paused, now_ms, serving)
    else:
        sentence = _EXPLANATIONS[message.state](detail, channels, paused, now_ms)
    return sentence[0].upper() + sentence[1:] + "."


def report_text(tp_status: int) -> str:
    """What a status report's TP-ST says, in words."""
    return status_text(tp_status)


def _none(detail: MessageDetail, channels: Channels, paused: str, now: int) -> str:
    return "it was not picked up yet"


def _bad_number(detail: MessageDetail, channels: Channels, paused: str, now: int) -> str:
    return f"nothing was sent: {detail.message.to_given!r} is no telephone number"


def _blocked(detail: MessageDetail, channels: Channels, paused: str, now: int) -> str:
    last = _last_event(detail, S.BLOCKED)
    return f"blocked{_when(last, now)}, not sent: {_said(last) or 'a list forbids it'}{_sent_before(detail)}"


def _to_process(
    detail: MessageDetail, channels: Channels, paused: str, now: int, serving: Sequence[Serving] | None
) -> str:
    message = detail.message
    held = _first(detail, S.HELD)
    if held is not None:
        last = _last_event(detail, S.HELD)
        by = f" by {last.actor}" if last is not None and last.actor else ""
        why = _said(last) or "an operator has to release it"
        return f"kept back{by}{_when(last, now)}: {why}{_sent_before(detail)}"
    in_hand = _first(detail, S.SUBMITTING)
    if in_hand is not None:
        wished = {"cancel": "; it will be cancelled if it can still be called back", "hold": "; it will be held"}
        return _submitting(detail, in_hand, channels, now) + wished.get(message.wish, "")
    doubtful = _first(detail, S.IN_DOUBT)
    if doubtful is not None:
        return f"{_doubt(detail, doubtful, now)}; the rest of the message waits for that"
    if message.queue == schema.OUT:
        return (
            f"set aside: {_because(message.reason)}; `gatewayd messages release` tries it again{_sent_before(detail)}"
        )
    if channels is None:
        return f"queued, but the daemon is not running{_wait(detail, now)}{_sent_before(detail)}"
    if paused:
        return f"queued, but nothing is sent: {paused}{_sent_before(detail)}"
    if message.queue == schema.BEHIND:
        return f"waits until message {message.waits_for} to the same number is through, so that their parts do not mix"
    if message.queue == schema.LATER and message.due_at > now:
        return _later(detail, now) + _sent_before(detail)
    return _line_up(detail, channels, now, serving) + _sent_before(detail)


def _submitting(detail: MessageDetail, segment: SegmentView, channels: Channels, now: int) -> str:
    attempt = next((a for a in reversed(detail.attempts) if (a.seq, a.number) == (segment.seq, segment.attempt)), None)
    since = "" if attempt is None else f" since {_time(attempt.intent_at)} ({_span(now - attempt.intent_at)})"
    what = f"segment {segment.seq} of {len(detail.segments)} is " if len(detail.segments) > 1 else ""
    if channels is None:
        return (
            f"{what}in the hands of channel {segment.channel}{since}, but the daemon is not running: "
            "at its next start it will be in doubt"
        )
    return f"{what}being submitted on channel {segment.channel}{since}"


def _wait(detail: MessageDetail, now: int) -> str:
    return f", and {_later(detail, now)}" if detail.message.due_at > now else ""


def _later(detail: MessageDetail, now: int) -> str:
    """Why it is not due yet."""
    message = detail.message
    when = f"at {_time(message.due_at)} (in {_span(message.due_at - now)})"
    if message.not_before == message.due_at:
        return f"not to be sent before {_time(message.due_at)} (in {_span(message.due_at - now)})"
    if message.reason.startswith("its number "):  # is in quarantine (spool/quarantine.py)
        return f"waits: {message.reason}"
    tries = max((segment.tries for segment in detail.segments if segment.state is S.QUEUED), default=0)
    after = f" after {_because(message.reason)}" if message.reason else ""
    so_far = f" ({_count(tries, 'try', 'tries')} so far)" if tries else ""
    return f"to be tried again {when}{after}{so_far}"


def _line_up(
    detail: MessageDetail, channels: Sequence[ChannelView], now: int, serving: Sequence[Serving] | None
) -> str:
    """It could be sent now: what keeps the channels from taking it."""
    message = detail.message
    fitting = list(channels)
    whose = ""
    if message.pin_channel:
        whose = f"pinned to channel {message.pin_channel}"
        fitting = [view for view in fitting if view.status.name == message.pin_channel]
        if not fitting:
            return f"{whose}, which the configuration does not have"
    if message.touched and message.sim_id:
        whose = f"bound to {_sim(detail)}, which sent a part of it"
        fitting = [view for view in fitting if view.sim_id == message.sim_id]
        if not fitting:
            return f"{whose} and is in no channel now"
    elif message.avoid_sim_id > 0:
        fitting = [view for view in fitting if view.sim_id != message.avoid_sim_id]
        if not fitting:
            return f"refused by the only SIM there is ({_because(message.reason)}), and no other channel can try it"
    if not fitting:
        return "no channel is configured"
    prefix = f"{whose}; " if whose else ""
    ready = [view for view in fitting if view.status.state is ChannelState.READY]
    if serving is not None:
        by_name = {one.channel: one for one in serving}
        if not any(view.status.name in by_name for view in fitting):
            return f"{prefix}no channel of the configuration serves {message.target!r}, where it is routed to"
        ready = [
            view for view in ready
            if (one := by_name.get(view.status.name)) is not None and (one.busy or not one.obstacle)
        ]  # fmt: skip
        obstacles = [by_name[view.status.name] for view in fitting if view.status.name in by_name]
        fitting = [view for view in fitting if view.status.name in by_name]
        if not ready and any(view.status.state is ChannelState.READY or view.mode for view in fitting):
            return prefix + _kept_from_it(obstacles)
    if not ready:
        return f"{prefix}no channel is ready: {_not_ready(fitting, now)}"
    return prefix + _turn(detail, ready)


def _kept_from_it(serving: Sequence[Serving]) -> str:
    """Every channel that could take it is kept from it: why, what they have in common once."""
    said = list(dict.fromkeys(one.obstacle for one in serving))
    more = f" and {len(said) - _CHANNELS_NAMED} more" if len(said) > _CHANNELS_NAMED else ""
    return f"waits: {'; '.join(said[:_CHANNELS_NAMED])}{more}"


def _turn(detail: MessageDetail, ready: Sequence[ChannelView]) -> str:
    ahead = detail.ahead
    before = ""
    if ahead:
        number = f"{ahead} or more" if ahead >= AHEAD_LIMIT else str(ahead)
        before = f", {number} {'message is' if ahead == 1 else 'messages are'} before it in the queue"
    free = [view for view in ready if view.in_hand is None]
    if not free:
        busy = ", ".join(f"{view.status.name} with message {view.in_hand}" for view in ready[:_CHANNELS_NAMED])
        return f"waits for its turn: {_all_of(ready)} busy ({busy}{_more(ready)}){before}"
    first = min(free, key=lambda view: view.next_start_in_s)
    if first.next_start_in_s > 0:
        wait = _span(int(first.next_start_in_s * 1000))
        pace = f"paced to one segment every {_span(int(first.interval_s * 1000))}"
        return f"waits for its turn: channel {first.status.name} ({pace}) may send again in {wait}{before}"
    return f"about to be taken by channel {first.status.name}{before}"


def _not_ready(views: Sequence[ChannelView], now: int) -> str:
    said = []
    for view in views[:_CHANNELS_NAMED]:
        status = view.status
        since = f" since {_time(status.since_ms)} ({_span(now - status.since_ms)})"
        said.append(f"{status.name} is {status.state.value}{since}{f': {status.reason}' if status.reason else ''}")
    return "; ".join(said) + _more(views)


def _processed(detail: MessageDetail, channels: Channels, paused: str, now: int) -> str:
    message, segments = detail.message, detail.segments
    sent_at = max((segment.submitted_at or 0 for segment in segments), default=0)
    names = {segment.channel for segment in segments if segment.channel}
    channel = f" on channel {', '.join(sorted(names))}" if names else ""
    sent = f"submitted{channel} at {_time(sent_at)}"
    if len(segments) > 1:
        sent = f"submitted in {len(segments)} segments{channel}, the last at {_time(sent_at)}"
    reported = max((segment.reported_at or 0 for segment in segments), default=0)
    if message.delivery is Delivery.DELIVERED:
        return f"delivered at {_time(reported)}, {sent}"
    if message.delivery is Delivery.UNDELIVERED:
        failed = _first(detail, S.UNDELIVERED)
        code = failed.tp_status if failed is not None else None
        why = "another part of it was never sent" if code is None else f"{status_text(code)} (TP-ST 0x{code:02X})"
        return f"{sent}, but not delivered: {why}"
    if message.delivery is Delivery.PENDING:
        got = sum(segment.state is S.DELIVERED for segment in segments)
        part = f" ({got} of {len(segments)} segments are delivered)" if got else ""
        until = max((segment.deadline_at or 0 for segment in segments), default=0)
        limit = f", waited for until {_time(until)}" if until else ""
        return f"{sent}; the status report has been pending for {_span(now - sent_at)}{part}{limit}"
    if message.delivery is Delivery.UNKNOWN:
        return f"{sent}; whether it was delivered is unknown: no status report came in time"
    return f"{sent}; no status report was asked for"


def _in_doubt(detail: MessageDetail, channels: Channels, paused: str, now: int) -> str:
    doubtful = _first(detail, S.IN_DOUBT)
    if doubtful is not None:
        return _doubt(detail, doubtful, now)
    abandoned = _first(detail, S.ABANDONED)
    if abandoned is None:
        return "in doubt"
    since = "" if abandoned.submitted_at is None else f" at {_time(abandoned.submitted_at)}"
    return (
        f"handed to channel {abandoned.channel}{since}, and nobody knows whether it was sent: neither a result nor a "
        "status report came in time, so it was given up and is not sent again by itself"
    )


def _doubt(detail: MessageDetail, segment: SegmentView, now: int) -> str:
    policy = detail.message.in_doubt
    since = "" if segment.submitted_at is None else f" at {_time(segment.submitted_at)}"
    last = _last_event(detail, S.IN_DOUBT)
    why = f" ({_said(last)})" if _said(last) else ""
    end = {
        InDoubtPolicy.FAIL: "is then given up, never sent again by itself",
        InDoubtPolicy.RESEND: "is then sent again, by its policy",
        InDoubtPolicy.HOLD: "",
    }[policy]
    what = f"segment {segment.seq} of {len(detail.segments)}" if len(detail.segments) > 1 else "it"
    known = f"in doubt: {what} was handed to channel {segment.channel}{since}{why} and may or may not have been sent"
    if policy is InDoubtPolicy.HOLD or segment.deadline_at is None:
        return f"{known}; a late result or status report settles it, or an operator"
    left = segment.deadline_at - now
    until = f"until {_time(segment.deadline_at)} ({_span(left)} left)" if left > 0 else "no longer"
    return f"{known}; it waits {until} for a late result or status report and {end}"


def _failed(detail: MessageDetail, channels: Channels, paused: str, now: int) -> str:
    message = detail.message
    tries = max((segment.tries for segment in detail.segments), default=0)
    attempt = next((a for a in reversed(detail.attempts) if a.outcome == "not_sent"), None)
    where = f" on channel {attempt.channel}" if attempt is not None else ""
    after = f" after {_count(tries, 'try', 'tries')}" if tries else ""
    last = _last_event(detail, S.FAILED)
    why = _because(message.reason) if message.reason else _said(last) or "refused"
    return f"failed{_when(last, now)}{after}{where}: {why}{_sent_before(detail)}"


def _expired(detail: MessageDetail, channels: Channels, paused: str, now: int) -> str:
    limit = detail.message.expires_at
    until = f" at {_time(limit)}" if limit is not None else ""
    tries = sum(attempt.outcome == "not_sent" for attempt in detail.attempts)
    tried = f", after {_count(tries, 'try', 'tries')}" if tries else ""
    return f"expired{until}, before it could be sent{tried}{_sent_before(detail)}"


def _cancelled(detail: MessageDetail, channels: Channels, paused: str, now: int) -> str:
    last = _last_event(detail, S.CANCELLED)
    by = f" by {last.actor}" if last is not None and last.actor else ""
    why = f": {_said(last)}" if _said(last) else ""
    return f"cancelled{by}{_when(last, now)}{why}{_sent_before(detail)}"


_EXPLANATIONS = {
    MessageState.NONE: _none,
    MessageState.PROCESSED: _processed,
    MessageState.BLOCKED: _blocked,
    MessageState.OTHER: _bad_number,
    MessageState.FAILED: _failed,
    MessageState.EXPIRED: _expired,
    MessageState.CANCELLED: _cancelled,
    MessageState.IN_DOUBT: _in_doubt,
}

_GONE = frozenset({S.SUBMITTED, S.DELIVERED, S.UNDELIVERED, S.NO_REPORT})


def _first(detail: MessageDetail, state: S) -> SegmentView | None:
    return next((segment for segment in detail.segments if segment.state is state), None)


def _last_event(detail: MessageDetail, to_state: S) -> EventView | None:
    return next((event for event in reversed(detail.events) if event.to_state == to_state), None)


def _said(event: EventView | None) -> str:
    return "" if event is None else event.detail.rstrip(".")


def _because(reason: str) -> str:
    return reason.rstrip(".")


def _when(event: EventView | None, now: int) -> str:
    return "" if event is None else f" at {_time(event.at)} ({_span(now - event.at)} ago)"


def _sent_before(detail: MessageDetail) -> str:
    """What part of it had gone out already."""
    gone = sum(segment.state in _GONE for segment in detail.segments)
    return f"; {gone} of its {len(detail.segments)} segments went out before" if gone else ""


def _sim(detail: MessageDetail) -> str:
    sim = detail.sim
    if sim is None:
        return "its SIM"
    return f"the SIM {sim.number or sim.iccid or sim.imsi}"


def _all_of(views: Sequence[ChannelView]) -> str:
    return "the channel is" if len(views) == 1 else f"all {len(views)} ready channels are"


def _more(views: Sequence[ChannelView]) -> str:
    return f" and {len(views) - _CHANNELS_NAMED} more" if len(views) > _CHANNELS_NAMED else ""


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _time(epoch_ms: int) -> str:
    """To the second; a day and a zone are always said, for the reader may be anywhere."""
    return f"{(iso(epoch_ms) or '')[:19].replace('T', ' ')} UTC"


def _span(duration_ms: int) -> str:
    """A duration as people say it, in its two largest units."""
    seconds = max(0, (duration_ms + 500) // 1000)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s" if minutes < 10 and seconds else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
