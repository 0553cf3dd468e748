"""When the next start may be: pure, on the monotonic clock."""

from __future__ import annotations

from dataclasses import dataclass

ROUNDING_S = 0.001  # starts are stored in whole milliseconds; they must not look closer than they were


@dataclass(slots=True)
class Pace:
    """The least time between the starts of two submissions. After a pause there is no catching up."""

    interval_s: float
    _next: float = float("-inf")

    def wait_s(self, now: float) -> float:
        """How long from `now` (monotonic seconds) until the next start; 0 if it may be at once."""
        return max(0.0, self._next - now)

    def started(self, at: float) -> None:
        """A submission was started at `at` (monotonic seconds)."""
        if self.interval_s > 0:
            self._next = max(self._next, at + self.interval_s + ROUNDING_S)


def start_moment(started_ms: int, finished_ms: int, called: float, finished: float) -> float:
    """The monotonic moment of a start of which the wall clock's reading is known.

    Source: the duration between two wall clock readings, cut to what the monotonic clock saw pass (`called` to
    `finished`), so that a jump of the wall clock cannot open a gap.
    """
    elapsed = min(max(0.0, (finished_ms - started_ms) / 1000), finished - called)
    return finished - elapsed
