"""What is done with a segment that was not sent: one table, class of failure to action, and a pure decision by it.

The device's driver says what is at fault (`modems/at/results.py`); what follows from that is said here and nowhere
else. Whatever is done is bounded. Shown in docs/outcomes.md. Source: spec/gsm-modem.md §5, the column Class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from gatewayd.model import FailureClass

EXCUSED_TRIES = 20  # so many attempts at a segment may be put down to a channel that is out of order, and no more


class Action(Enum):
    """Where the segment goes."""

    AGAIN = "again"  # back to the queue, due after `delay_ms`
    ELSEWHERE = "elsewhere"  # the same, but not to this SIM
    FAIL = "fail"


class Brake(Enum):
    """What a cluster of one code does to its channel (`router/breaker.py`)."""

    NONE = "none"
    SLOW = "slow down"  # longer pauses between starts
    OPEN = "stop"  # nothing more for a while, then one try


@dataclass(frozen=True, slots=True)
class Remedy:
    """What is done about a class of failure.

    `tries`: the most counted ones, None: as many as the policy has. `first_step`: where in the policy's series of
    pauses it begins. `elsewhere`: from which try on an untouched message goes to another SIM, where there is one (None:
    that does not help). `believed`: if that SIM's network refuses it as well, it fails. `brake`: for the channel.
    `number`: a message that fails of it in the end counts against its number (`spool/quarantine.py`).
    """

    tries: int | None = None
    first_step: int = 0
    elsewhere: int | None = None
    believed: bool = False
    brake: Brake = Brake.NONE
    number: bool = False


_F = FailureClass

ACTIONS: Mapping[FailureClass, Remedy] = MappingProxyType(
    {
        _F.NUMBER: Remedy(tries=1, number=True),
        _F.UNREACHABLE: Remedy(first_step=2, number=True),
        _F.MESSAGE: Remedy(tries=1),
        _F.REJECTED: Remedy(elsewhere=1, believed=True, brake=Brake.OPEN, number=True),
        _F.SIM: Remedy(elsewhere=1, brake=Brake.OPEN),
        _F.SMSC: Remedy(elsewhere=1, brake=Brake.OPEN),
        _F.NETWORK: Remedy(elsewhere=3, brake=Brake.OPEN, number=True),
        _F.CONGESTION: Remedy(first_step=1, brake=Brake.SLOW),
        _F.DEVICE: Remedy(elsewhere=2, brake=Brake.OPEN),
        _F.SETUP: Remedy(elsewhere=2, brake=Brake.OPEN),
        _F.UNKNOWN: Remedy(elsewhere=2, brake=Brake.OPEN),
    }
)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """At most `attempts` counted tries per segment; `backoff_ms` before the second, third … (the last repeats)."""

    attempts: int = 5
    backoff_ms: Sequence[int] = (10_000, 30_000, 120_000, 600_000, 1_800_000)

    def pause_ms(self, step: int) -> int:
        """The pause at `step` (from 0) of the series."""
        return self.backoff_ms[min(step, len(self.backoff_ms) - 1)] if self.backoff_ms else 0


@dataclass(frozen=True, slots=True)
class Decision:
    """`counted`: it uses up one of the segment's tries. `blames_number`: it counts towards the number's quarantine."""

    action: Action
    delay_ms: int = 0
    counted: bool = True
    blames_number: bool = False


def decide(
    policy: RetryPolicy,
    failure: FailureClass,
    tries: int,
    *,
    written: bool,
    movable: bool,
    alternatives: bool,
    refused_before: bool = False,
    lost: bool = False,
    attempts: int = 0,
    stopped_ms: int = 0,
) -> Decision:
    """Decide on a segment that is known not to have been sent.

    `tries` counts this one too. `written`: a byte of it reached the modem; if none did, the channel is at fault and the
    try does not count (the channel's own back-off bounds it). `movable`: no other segment of the message ties it to the
    SIM. `alternatives`: there is another channel it might go to. `refused_before`: another SIM has sent it elsewhere
    already. `lost`: the channel went away with it, so that waiting helps nobody. `attempts`: all there were at the
    segment, counted or not. `stopped_ms`: for how long the channel is stopped because the same fails for other numbers
    too (0: it is not): the channel is at fault then, and the message waits past its next try or goes to another one.
    """
    remedy = ACTIONS[failure]
    if not written and remedy.tries != 1:
        return Decision(Action.AGAIN, 0, counted=False)
    if stopped_ms > 0 and attempts < EXCUSED_TRIES:
        if movable and alternatives:
            return Decision(Action.ELSEWHERE, stopped_ms if refused_before else 0, counted=False)
        # Later than the channel's next try, or that would be this message again, were it the one that is at fault.
        return Decision(Action.AGAIN, stopped_ms + policy.pause_ms(remedy.first_step), counted=False)
    fails = Decision(Action.FAIL, blames_number=remedy.number)
    if tries >= min(remedy.tries or policy.attempts, policy.attempts):
        return fails
    pause_ms = policy.pause_ms(remedy.first_step + tries - 1)
    if remedy.elsewhere is not None and tries >= remedy.elsewhere and movable and alternatives:
        if not refused_before:
            return Decision(Action.ELSEWHERE)
        return fails if remedy.believed else Decision(Action.ELSEWHERE, pause_ms)
    return Decision(Action.AGAIN, 0 if lost else pause_ms)
