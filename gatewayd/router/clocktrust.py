"""Whether the machine's clock can be believed; what has a window, or a quota by day or month, waits while it cannot.

Two doubts. The clock is behind the newest time in the spool by more than a time service sets it back: a machine without
a battery wakes up in the past. Or the machine has just started and no time service has set its clock yet. Each ends by
itself, when the clock has caught up, is set, or the machine has run for a while; or on an operator's word. DESIGN §6.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from gatewayd.clock import Clock
from gatewayd.errors import SpoolError
from gatewayd.spool.clockmark import ClockMark
from gatewayd.spool.store import Store

log = logging.getLogger("gatewayd.clock")

SLACK_MS = 60_000
"""A clock that is behind by no more is not doubted: time services set clocks back by seconds all the time, and windows,
days and months begin and end on a minute."""

LOOK_S = 1.0  # how often it is looked whether a doubt began or ended
ADJTIMEX_OCTETS = 512  # struct timex has 208 on 64-bit Linux
TIME_ERROR = 5  # what adjtimex(2) returns while STA_UNSYNC is set
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Sources(Protocol):
    """What the machine says of its clock; None, or "", where it does not say."""

    def synchronised(self) -> bool | None:
        """Whether a time service keeps the clock."""
        ...

    def uptime_s(self) -> float | None:
        """Seconds since the machine started."""
        ...

    def boot(self) -> str:
        """An id of this start of the machine."""
        ...


class LinuxSources:
    """The kernel's own word. It cannot be had in some containers and elsewhere than on Linux."""

    def __init__(self) -> None:
        self._adjtimex: Callable[[ctypes.Array[ctypes.c_char]], int] | None = None
        with contextlib.suppress(OSError, AttributeError):
            self._adjtimex = ctypes.CDLL(None).adjtimex

    def synchronised(self) -> bool | None:
        """adjtimex(2) with `modes` 0 changes nothing and needs no privilege."""
        if self._adjtimex is None:
            return None
        status = self._adjtimex(ctypes.create_string_buffer(ADJTIMEX_OCTETS))
        return None if status < 0 else status != TIME_ERROR

    def uptime_s(self) -> float | None:
        """CLOCK_BOOTTIME, which goes on while the machine sleeps, as /proc/uptime does."""
        clock = getattr(time, "CLOCK_BOOTTIME", None)
        try:
            return None if clock is None else time.clock_gettime(clock)
        except OSError:
            return None

    def boot(self) -> str:
        try:
            return BOOT_ID.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""


@dataclass(frozen=True, slots=True)
class ClockView:
    """The clock as it is shown. `newest_ms` 0: there is no entry. `doubt` "": it is trusted."""

    now_ms: int
    newest_ms: int
    synchronised: bool | None
    uptime_s: float | None
    require_sync: bool
    wait_s: float
    accepted_ms: int | None
    accepted_by: str
    doubt: str


class ClockTrust:
    """`begin` first, with what the spool knew when it was opened; then `run` as a task, and `doubt` from any thread.

    `on_change` is called when a doubt has begun or ended: what waits for it is looked at again.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        require_sync: bool = True,
        wait_s: float = 900.0,
        sources: Sources | None = None,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._require_sync = require_sync
        self._wait_s = wait_s
        self._sources = sources or LinuxSources()
        self._on_change = on_change
        self._mark = ClockMark()
        self._newest = 0  # the largest time seen, the spool's or the clock's
        self._boot = ""
        self._settled = False  # it was synchronised, or accepted, since the machine started: that stays so
        self._looked_s = float("-inf")  # uptime when the kernel was last asked
        self._said = ""
        self._kept = 0  # the newest time that is in the spool's settings

    def configure(self, *, require_sync: bool, wait_s: float) -> None:
        """Work by other settings from now on."""
        self._require_sync, self._wait_s = require_sync, wait_s
        self.look()

    def begin(self, mark: ClockMark) -> None:
        """Take over what the spool knew."""
        self._boot = self._sources.boot()
        self._take(mark)
        self.look()

    def doubt(self, now_ms: int) -> str:
        """Why the clock, which reads `now_ms`, cannot be believed, and what to do; "" if it can."""
        if now_ms >= self._newest:
            self._newest = now_ms
        elif self._newest - now_ms > SLACK_MS:
            behind = _span(self._newest - now_ms)
            return (
                f"the clock reads {_time(now_ms)}, {behind} before the newest time seen ({_time(self._newest)}); "
                "set it right, or say that it is with `gatewayd clock accept`"
            )
        if self._settled or not self._require_sync:
            return ""
        return self._unsynchronised()

    def view(self) -> ClockView:
        """The clock as it is now."""
        now = self._clock.now_ms()
        doubt = self.doubt(now)
        return ClockView(
            now, self._newest, self._sources.synchronised(), self._sources.uptime_s(), self._require_sync, self._wait_s,
            self._mark.accepted_ms, self._mark.accepted_by, doubt,
        )  # fmt: skip

    async def accept(self, actor: str) -> None:
        """The clock is right, says `actor`; durable. Raises SpoolError."""
        self._take(await self._store.accept_clock(actor, self._boot))
        self.look()

    async def run(self) -> None:
        """Look again and again; never ends by itself."""
        while True:
            self.look()
            if self._said and self._newest > self._kept and self._newest - self._clock.now_ms() > SLACK_MS:
                await self._keep()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Say so if a doubt has begun or ended."""
        doubt = self.doubt(self._clock.now_ms())
        if bool(doubt) == bool(self._said):
            return
        self._said = doubt
        if doubt:
            log.warning("what has a window, or a quota by day or month, waits: %s", doubt)
        else:
            log.info("the clock is trusted again: it reads %s", _time(self._clock.now_ms()))
        self._on_change()

    def _take(self, mark: ClockMark) -> None:
        self._mark = mark
        self._newest = self._kept = mark.newest_ms
        self._settled = bool(mark.boot) and mark.boot == self._boot

    def _unsynchronised(self) -> str:
        """The kernel is asked once a second at most, and no more once it said yes or the wait is over."""
        uptime_s = self._sources.uptime_s()
        if uptime_s is None or uptime_s >= self._wait_s:
            return ""
        if uptime_s - self._looked_s >= LOOK_S:
            self._looked_s = uptime_s
            self._settled = self._sources.synchronised() is not False
            if self._settled:
                return ""
        left = _span(int((self._wait_s - uptime_s) * 1000))
        return (
            f"no time service has set the clock since the machine started {_span(int(uptime_s * 1000))} ago; it is "
            f"waited for {left} more, or say that it is right with `gatewayd clock accept`"
        )

    async def _keep(self) -> None:
        """The next start is to know it too, whatever is written until then."""
        newest = self._newest
        try:
            await self._store.keep_clock_mark(newest)
        except SpoolError as error:
            log.debug("the newest time is not written down yet: %s", error)
        else:
            self._kept = newest


def _time(epoch_ms: int) -> str:
    return f"{datetime.fromtimestamp(epoch_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _span(ms: int) -> str:
    """A time in words, by its largest unit: "23 h", "2 min"."""
    seconds = ms // 1000
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length or (unit == "min" and seconds >= length):
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
