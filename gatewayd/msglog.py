"""The life of messages in the log: one function for each event. Numbers are masked, texts never appear."""

from __future__ import annotations

import logging

log = logging.getLogger("gatewayd.message")

_unmasked = False  # set once, by `configure`


def configure(*, mask: bool) -> None:
    """Choose whether numbers are shown whole (`gateway.logging.mask: false`)."""
    global _unmasked
    _unmasked = not mask


def masked(number: str) -> str:
    """A number as the log shows it: its head and its last two digits."""
    if _unmasked or len(number) <= 6:
        return number
    return f"{number[:-6]}****{number[-2:]}"


def accepted(message_id: int, to: str, segments: int, caller: str) -> None:
    """A message is on disk."""
    log.info("accepted idm=%d to=%s segments=%d by=%s", message_id, masked(to), segments, caller)


def submitted(message_id: int, seq: int, total: int, channel: str, tp_mr: int | None, took_ms: int) -> None:
    """The network took a segment."""
    log.info(
        "sent idm=%d segment=%d/%d channel=%s tp_mr=%s took_ms=%d", message_id, seq, total, channel, tp_mr, took_ms
    )


def not_sent(message_id: int, seq: int, total: int, channel: str, code: str, text: str) -> None:
    """A segment is known not to have gone out."""
    log.warning("not sent idm=%d segment=%d/%d channel=%s code=%r: %s", message_id, seq, total, channel, code, text)


def withdrawn(message_id: int, seq: int, channel: str, text: str) -> None:
    """We called a segment back before it was written; it is queued again."""
    log.info("called back idm=%d segment=%d channel=%s: %s", message_id, seq, channel, text)


def in_doubt(message_id: int, seq: int, channel: str, text: str) -> None:
    """Nobody knows whether a segment went out."""
    log.warning("in doubt idm=%d segment=%d channel=%s: %s", message_id, seq, channel, text)


def late_result(message_id: int | None, channel: str, tp_mr: int | None) -> None:
    """A +CMGS came after its command had been given up."""
    log.info("late result channel=%s tp_mr=%s settles idm=%s", channel, tp_mr, message_id)


def reported(message_id: int | None, seq: int | None, channel: str, verdict: str, tp_status: int) -> None:
    """A status report came; `message_id` None: of nothing we know."""
    log.info("report idm=%s segment=%s channel=%s %s tp_status=0x%02X", message_id, seq, channel, verdict, tp_status)


def received(part_id: int, channel: str, originator: str, duplicate_of: int | None, error: str | None) -> None:
    """A TPDU came in and is on disk."""
    if error is not None:
        log.warning("received part=%d channel=%s that cannot be decoded: %s", part_id, channel, error)
    elif duplicate_of is not None:
        log.info("received part=%d channel=%s again: it repeats part %d", part_id, channel, duplicate_of)
    else:
        log.info("received part=%d channel=%s from=%s", part_id, channel, masked(originator))
