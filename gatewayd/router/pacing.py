"""When the next start may be: pure, on the monotonic clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

ROUNDING_S = 0.001  # starts are stored in whole milliseconds; they must not look closer than they were


@dataclass(slots=True)
class Pace:
    """The least time between the starts of two submissions, with `jitter_s` at most added to each at random.

    After a pause there is no catching up beyond `burst`: so many starts may follow one another at once, and then each
    of them has used up the time of one (the generic cell rate algorithm of ITU-T I.371).
    """

    interval_s: float
    jitter_s: float = 0.0
    burst: int = 1
    chance: Callable[[], float] = lambda: 1.0  # 0 to 1
    _next: float = float("-inf")  # when the allowance is whole again but for one start

    def wait_s(self, now: float) -> float:
        """How long from `now` (monotonic seconds) until the next start; 0 if it may be at once."""
        return max(0.0, self._next - (self.burst - 1) * self.interval_s - now)

    def started(self, at: float) -> None:
        """A submission was started at `at` (monotonic seconds). One that did not wait takes nothing from the next."""
        if self.interval_s > 0:
            step = self.interval_s + self.jitter_s * self.chance() + ROUNDING_S
            base = at if self.burst == 1 or self.wait_s(at) > 0 else max(self._next, at)
            self._next = max(self._next, base + step)

    def resume(self, at: float) -> None:
        """A submission was started at `at`, and what went before it is not known: the burst counts as used up."""
        if self.interval_s > 0:
            self._next = max(self._next, at + self.burst * self.interval_s + ROUNDING_S)

    def become(self, interval_s: float, jitter_s: float = 0.0, burst: int = 1) -> None:
        """Keep another pace from the next start on; what is waited for now gets shorter with it, but not longer."""
        self._next -= max(0.0, self.interval_s - interval_s)
        self.interval_s, self.jitter_s, self.burst = interval_s, jitter_s, burst


def start_moment(started_ms: int, finished_ms: int, called: float, finished: float) -> float:
    """The monotonic moment of a start of which the wall clock's reading is known.

    Source: the duration between two wall clock readings, cut to what the monotonic clock saw pass (`called` to
    `finished`), so that a jump of the wall clock cannot open a gap.
    """
    elapsed = min(max(0.0, (finished_ms - started_ms) / 1000), finished - called)
    return finished - elapsed
