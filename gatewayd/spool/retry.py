"""What is done with a segment that was not sent: a pure decision. Always bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from gatewayd.model import Retry


class Action(Enum):
    """Where the segment goes."""

    AGAIN = "again"  # back to the queue, due after `delay_ms`
    ELSEWHERE = "elsewhere"  # the same, but not to this SIM
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `attempts` counted tries per segment; `backoff_ms` before the second, third … (the last repeats)."""

    attempts: int = 5
    backoff_ms: Sequence[int] = (10_000, 30_000, 120_000, 600_000, 1_800_000)


@dataclass(frozen=True, slots=True)
class Decision:
    action: Action
    delay_ms: int = 0
    counted: bool = True


def decide(
    policy: RetryPolicy,
    retry: Retry,
    tries: int,
    *,
    written: bool,
    movable: bool,
    alternatives: bool,
    refused_before: bool = False,
    lost: bool = False,
) -> Decision:
    """Decide on a segment that is known not to have been sent.

    `tries` counts this one too. `written`: a byte of it reached the modem; if none did, the channel is at fault and the
    try does not count (the channel's own back-off bounds it). `movable`: no other segment of the message ties it to the
    SIM. `alternatives`: there is another channel it might go to. `refused_before`: another SIM's network has sent it
    elsewhere already; a second refusal is believed. `lost`: the channel went away with it, so that waiting helps
    nobody.
    """
    if not written and retry is not Retry.NEVER:
        return Decision(Action.AGAIN, 0, counted=False)
    if retry is Retry.NEVER or tries >= policy.attempts:
        return Decision(Action.FAIL)
    delay_ms = policy.backoff_ms[min(tries, len(policy.backoff_ms)) - 1] if policy.backoff_ms else 0
    if retry is Retry.ELSEWHERE and movable and alternatives:
        return Decision(Action.FAIL if refused_before else Action.ELSEWHERE)
    return Decision(Action.AGAIN, 0 if lost else delay_ms)
