"""The service manager's side: what systemd is told (sd_notify), and the watchdog.

The watchdog is fed only while the event loop turns and everything that must work answers. Whoever waits is alive: for a
window, for a modem, for nothing at all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

log = logging.getLogger("gatewayd.service")

START_STEP_S = 60
"""A start that takes long says within this time that it goes on."""
HEART_LIMIT_S = 30.0
"""How long a heart may take to answer."""
_SEND_LIMIT_S = 1.0  # a service manager that does not read must not hold the event loop up


class Notifier:
    """Speaks to the service manager over $NOTIFY_SOCKET. Without that variable every call does nothing.

    Nothing here raises: a service manager that cannot be reached is noted in the log, once.
    Source: sd_notify(3).
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._failed = False

    def ready(self, status: str = "") -> None:
        """The start, or a reload, is complete. `status` is a line for people, as `systemctl status` shows it."""
        self._send("READY=1", *_status(status))

    def starting(self, status: str) -> None:
        """The start goes on, and may take as long again."""
        self._send(f"EXTEND_TIMEOUT_USEC={START_STEP_S * 1_000_000}", *_status(status))

    def status(self, text: str) -> None:
        """Say in one line what is going on."""
        self._send(*_status(text))

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it, whether the new configuration was taken or not."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def stopping(self) -> None:
        """The stop has begun."""
        self._send("STOPPING=1")

    def watchdog(self) -> None:
        """We live."""
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address or not lines:
            return
        name = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(_SEND_LIMIT_S)
                channel.sendto("\n".join(lines).encode("utf-8", "replace"), name)
        except (OSError, ValueError) as error:
            log.log(
                logging.DEBUG if self._failed else logging.WARNING,
                "the service manager cannot be told %s at %s: %s", lines[0], self._address, error,
            )  # fmt: skip
            self._failed = True
        else:
            self._failed = False


def _status(text: str) -> list[str]:
    return [f"STATUS={' '.join(text.split())}"] if text else []


class Heart(Protocol):
    """Something that has to work for the daemon to be worth keeping."""

    @property
    def name(self) -> str:
        """Stands in the log when it stops."""
        ...

    async def beat(self) -> None:
        """Return when alive, however idle. Raises, or does not return, when not."""
        ...


class TaskHeart:
    """Alive while a task is not done."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task

    @property
    def name(self) -> str:
        return self._task.get_name()

    async def beat(self) -> None:
        """Raises RuntimeError if the task has ended."""
        if not self._task.done():
            return
        if self._task.cancelled():
            raise RuntimeError("its task was cancelled")
        error = self._task.exception()
        raise RuntimeError("its task has ended" if error is None else f"its task failed: {error!r}")


def task_heart(task: asyncio.Task[Any]) -> Heart:
    """A heart of a task that must never end; its name is the task's."""
    return TaskHeart(task)


def watchdog_period_s(environ: Mapping[str, str] = os.environ) -> float | None:
    """After how many seconds without a sign of life the service manager kills this process.

    None: it does not watch, or watches another process ($WATCHDOG_PID). Source: sd_watchdog_enabled(3).
    """
    try:
        period_us = int(environ.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    of_process = environ.get("WATCHDOG_PID", "")
    return None if period_us <= 0 or of_process not in ("", str(os.getpid())) else period_us / 1e6


class Watchdog:
    """Feeds the service manager's watchdog at a third of its period while every heart beats.

    `hearts` is asked at each turn, so channels may come and go. A heart has 30 s to answer, and less if the period is
    short: a third of it. One that does not answer is named in the log, CRITICAL, once; from then on nothing is fed, and
    the service manager kills and restarts the daemon, unless the heart beats again in time.
    """

    def __init__(
        self,
        notifier: Notifier,
        hearts: Callable[[], Sequence[Heart]],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self._notifier = notifier
        self._hearts = hearts
        self._period_s = watchdog_period_s(environ)
        self._silent: set[str] = set()
        self._late: set[asyncio.Task[None]] = set()  # gave no answer in time: held until they end

    async def run(self) -> None:
        """Run until cancelled; returns at once where nobody watches."""
        if self._period_s is None:
            return
        interval_s = self._period_s / 3
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                alive = await self._all_beat(min(HEART_LIMIT_S, interval_s))
            except Exception:  # a bug of ours must not look like a daemon that hangs for no reason
                log.critical("the watchdog cannot ask for heartbeats and is not fed", exc_info=True)
                alive = False
            if alive:
                self._notifier.watchdog()
            await asyncio.sleep(max(0.0, started + interval_s - loop.time()))

    async def _all_beat(self, limit_s: float) -> bool:
        hearts = list(self._hearts())
        beats = [asyncio.create_task(heart.beat(), name=f"heartbeat {heart.name}") for heart in hearts]
        try:
            if beats:
                await asyncio.wait(beats, timeout=limit_s)
            silent = {
                heart.name: reason
                for heart, beat in zip(hearts, beats, strict=True)
                if (reason := _silence(beat, limit_s)) is not None
            }
        finally:
            for beat in beats:
                if not beat.done():
                    beat.cancel()
                    self._late.add(beat)
                    beat.add_done_callback(self._ended)
        self._tell(silent)
        return not silent

    def _ended(self, beat: asyncio.Task[None]) -> None:
        self._late.discard(beat)
        if not beat.cancelled():
            beat.exception()  # taken note of, or asyncio complains

    def _tell(self, silent: Mapping[str, str]) -> None:
        for name in sorted(silent.keys() - self._silent):
            log.critical(
                "%s does not answer: %s. The watchdog is not fed until it does, and the service manager ends this"
                " process after at most %g s", name, silent[name], self._period_s,
            )  # fmt: skip
        for name in sorted(self._silent - silent.keys()):
            log.info("%s answers again%s", name, "" if silent else "; the watchdog is fed")
        self._silent = set(silent)


def _silence(beat: asyncio.Task[None], limit_s: float) -> str | None:
    """Why a heart is taken for dead; None if it beat."""
    if not beat.done():
        return f"no heartbeat within {limit_s:g} s"
    if beat.cancelled():
        return "its heartbeat was cancelled"
    error = beat.exception()
    return None if error is None else str(error) or repr(error)
