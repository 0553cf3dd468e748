"""What clusters of failures do to a channel: it is slowed down, or stopped for a while and then tried once. Pure.

One object for each channel and SIM; times are monotonic seconds, given by the caller. It looks only at failures whose
class says something of the channel (`spool/retry.ACTIONS`, column `brake`): a list of dead numbers stops nobody.
Source: spec/gsm-modem.md §3 "Rates", §5 "Rule over all".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gatewayd.model import FailureClass
from gatewayd.spool.retry import ACTIONS, Brake

MAX_CODES = 50  # told apart at a time; a modem that invents one for each message is not remembered for ever


@dataclass(frozen=True, slots=True)
class BreakerSettings:
    """`failures` of one code, to at least `numbers` different ones, without a success between, stop a channel.

    `pause_s`: for how long at first; it doubles with each try that fails, up to `max_pause_s`. `slow_s`: the interval
    between starts after congestion; it doubles with each more, up to `max_slow_s`, and each success halves it.
    """

    failures: int = 5
    numbers: int = 2
    pause_s: float = 30.0
    max_pause_s: float = 900.0
    slow_s: float = 1.0
    max_slow_s: float = 60.0


@dataclass(slots=True)
class _Row:
    """Failures of one code since the last success: how often, to whom (no more than matter), since when."""

    count: int
    since: float
    numbers: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Breaker:
    """Closed, stopped (`wait_s` > 0), or open for one try (stopped before, and the pause is over)."""

    settings: BreakerSettings = field(default_factory=BreakerSettings)
    _rows: dict[str, _Row] = field(default_factory=dict)
    _cause: str = ""  # the code it is stopped for; "" while closed
    _pause_s: float = 0.0  # the current one
    _until: float = float("-inf")  # it is stopped
    _interval_s: float = 0.0
    _next: float = float("-inf")  # the next start while it is slowed down
    _slow_for: str = ""  # the code

    def failed(self, failure: FailureClass, code: str, number: str, now: float) -> float:
        """Note a submission that was not sent, or is in doubt, at its end. `code` "": the device said nothing.

        Returns for how many seconds the channel is stopped now: the failure is the channel's then, not the message's.
        A device that says nothing is its supervisor's matter, and whoever called the submission back says nothing here.
        """
        brake = ACTIONS[failure].brake
        if not code or brake is Brake.NONE:
            return 0.0
        if brake is Brake.SLOW:
            self._slow_down(code, now)
            return 0.0
        if code not in self._rows and len(self._rows) >= MAX_CODES:
            del self._rows[next(iter(self._rows))]
        row = self._rows.setdefault(code, _Row(0, now))
        row.count += 1
        if len(row.numbers) < self.settings.numbers:
            row.numbers.add(number)
        if self._cause:  # that was the one try
            self._stop(code, min(self._pause_s * 2, self.settings.max_pause_s), now)
        elif row.count >= self.settings.failures and len(row.numbers) >= self.settings.numbers:
            self._stop(code, self.settings.pause_s, now)
        return self.stopped_s(now)

    def succeeded(self, now: float) -> None:
        """Note a submission that was sent, at its end: the channel is not stopped any more, and half as slow."""
        self._rows.clear()
        self._cause, self._pause_s, self._until = "", 0.0, float("-inf")
        self._interval_s /= 2
        if self._interval_s < self.settings.slow_s:
            self._interval_s, self._slow_for = 0.0, ""
        self._next = now + self._interval_s

    def wait_s(self, now: float) -> float:
        """How long from `now` until the next submission may start; 0: at once."""
        return max(self.stopped_s(now), self._next - now, 0.0)

    def stopped_s(self, now: float) -> float:
        """How long it is still stopped; 0: it is not, or the pause before its one try is over."""
        return max(0.0, self._until - now)

    @property
    def interval_s(self) -> float:
        """The least time between the end of one submission and the start of the next while it is slowed down; 0: it is
        not.
        """
        return self._interval_s

    def reason(self, now: float, at: Callable[[float], str]) -> str:
        """Why it waits or is slow, as a sentence; "" if it does not. `at` shows a monotonic moment to people."""
        if self._cause:
            row = self._rows[self._cause]
            often = "once" if row.count == 1 else f"{row.count} times in a row"
            last = f"{self._cause} {often} since {at(row.since)}"
            left_s = self.stopped_s(now)
            return f"stopped: {last}; tried again {f'at {at(self._until)}' if left_s else 'with the next message'}"
        if self._interval_s:
            return f"slowed down to one message in {self._interval_s:g} s after {self._slow_for}"
        return ""

    def release(self) -> None:
        """Forget all of it: an operator, or another SIM, begins anew."""
        self._rows.clear()
        self._cause, self._pause_s, self._until = "", 0.0, float("-inf")
        self._interval_s, self._next, self._slow_for = 0.0, float("-inf"), ""

    def _stop(self, code: str, pause_s: float, now: float) -> None:
        self._cause, self._pause_s, self._until = code, pause_s, now + pause_s

    def _slow_down(self, code: str, now: float) -> None:
        doubled = min(self._interval_s * 2, self.settings.max_slow_s)
        self._interval_s, self._slow_for = max(self.settings.slow_s, doubled), code
        self._next = now + self._interval_s
