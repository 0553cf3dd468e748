"""A scripted modem on a real pty, and the recorded-style dialogues it plays.

The dialogues lie in `tests/modems/at/dialogues`, as text: see the head of generic.txt. They were written from the sheet
(spec/gsm-modem.md); none was verified on hardware.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from gatewayd.clock import SystemClock
from gatewayd.errors import SpoolError
from gatewayd.model import Message, Segment, SimIdentity
from gatewayd.modems.bringup import Patience
from gatewayd.modems.channel import ChannelEvent, LateResult, Received, StateChanged
from gatewayd.modems.client import Timing
from gatewayd.modems.gsm import GsmChannel, GsmSettings

DIALOGUES = Path(__file__).parent / "at" / "dialogues"
NAMES = sorted(path.stem for path in DIALOGUES.glob("*.txt"))
DEADLINE_S = 20  # for what a test waits for; never reached on a working gatewayd

# Silences are short, limits of what does come are the real ones: a slow machine changes nothing.
TIMING = Timing(quiet_s=0.05, open_quiet_s=0.01, settle_s=0.0)
PATIENCE = Patience(retry_s=0.01, tries=3, sim_s=0.1)

DELIVER = "07915989900000F0040B915989433844F400006211320221000005C8329BFD06"
REPORT = "07915989900000F006050B915989433844F46211320221000062113202210000" + "00"

Answer = bytes | list[bytes] | Callable[[], bytes]
T = TypeVar("T")


def load(name: str) -> dict[str, bytes]:
    """A dialogue: what we write → what comes back."""
    answers: dict[str, bytes] = {}
    question = ""
    for line in (DIALOGUES / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("> "):
            question = line[2:]
            answers[question] = b""
        elif line.startswith("< "):
            answers[question] += line[2:].encode("latin-1").decode("unicode_escape").encode("latin-1")
    return answers


def ok(*lines: str) -> bytes:
    """Information lines and OK, as a modem frames them."""
    return b"".join(f"\r\n{line}\r\n".encode("latin-1") for line in lines) + b"\r\nOK\r\n"


def error(text: str = "ERROR") -> bytes:
    return f"\r\n{text}\r\n".encode("latin-1")


class Peer:
    """A modem on a pty under the name `path` (a symbolic link), whose answers a test replaces at will.

    `answers` maps a command to what it is answered with: bytes, a list of them (one for each time, the last one for
    ever), or a function. A command that is not there gets ERROR. "AT+CMGS=" gives the prompt, "PDU" what follows the
    PDU, "ESC" what follows a withdrawal.
    """

    def __init__(self, path: Path, dialogue: str = "generic") -> None:
        self.path = path
        self.answers: dict[str, Answer] = {"ESC": ok(), **load(dialogue)}
        self.heard: list[str] = []
        self.pdus: list[str] = []
        self._rest = b""
        self._awaits_pdu = False
        self._something = asyncio.Event()
        self._master = self._slave = -1
        self.plug()

    def plug(self) -> None:
        """Appear at `path`, like a device that was plugged in."""
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._rest, self._awaits_pdu = b"", False
        self.path.symlink_to(os.ttyname(self._slave))
        asyncio.get_running_loop().add_reader(self._master, self._read)

    def unplug(self) -> None:
        """Vanish: whoever holds the port sees a hang-up, and the path is gone."""
        if self._master < 0:
            return
        asyncio.get_running_loop().remove_reader(self._master)
        self.path.unlink()
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def say(self, data: bytes) -> None:
        if self._master >= 0 and data:
            os.write(self._master, data)

    def urc(self, *lines: str) -> None:
        self.say(b"".join(f"\r\n{line}\r\n".encode("latin-1") for line in lines))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until what was heard fulfils `condition`."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._something.clear()
                await self._something.wait()

    def unplug_after(self, data: bytes = b"") -> Callable[[], bytes]:
        """An answer: say `data`, then vanish (once it was read: a hang-up throws away what lies in the pty)."""

        def answer() -> bytes:
            self.say(data)
            asyncio.get_running_loop().call_later(0.05 if data else 0, self.unplug)
            return b""

        return answer

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return
        self._rest += data
        while self._rest and self._master >= 0:
            ends = b"\x1a\x1b" if self._awaits_pdu else b"\r\x1b"
            cut = min((i for i in (self._rest.find(end) for end in ([ends[:1], ends[1:]])) if i >= 0), default=-1)
            if cut < 0:
                return
            text, end, self._rest = self._rest[:cut].decode(), self._rest[cut : cut + 1], self._rest[cut + 1 :]
            self._hear(text, end)

    def _hear(self, text: str, end: bytes) -> None:
        awaited, self._awaits_pdu = self._awaits_pdu, False
        if end == b"\x1b":
            self.heard.append("ESC")
            if awaited:
                self._answer("ESC")
        elif awaited:
            self.pdus.append(text)
            self.heard.append("PDU")
            self._answer("PDU")
        elif text:
            self.heard.append(text)
            key = "AT+CMGS=" if text.startswith("AT+CMGS=") and "AT+CMGS=" in self.answers else text
            self._answer(key)
        self._something.set()

    def _answer(self, key: str) -> None:
        answer = self.answers.get(key, error())
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        data = answer() if callable(answer) else answer
        if key == "AT+CMGS=" and b">" in data:
            self._awaits_pdu = True
        self.say(data.replace(b"{pdu}", self.pdus[-1].encode() if self.pdus else b""))


@contextlib.asynccontextmanager
async def peer_at(folder: Path, dialogue: str = "generic", name: str = "modem0") -> AsyncIterator[Peer]:
    peer = Peer(folder / name, dialogue)
    try:
        yield peer
    finally:
        peer.unplug()


class Collector:
    """A sink that keeps what it gets and acknowledges what was received.

    `refuse` holds which of the received (counted from 1) are not taken; `watch` is called with each before that.
    """

    def __init__(self, *, refuse: tuple[int, ...] = (), watch: Callable[[Received], None] | None = None) -> None:
        self.events: list[ChannelEvent] = []
        self._refuse = refuse
        self._watch = watch
        self._something = asyncio.Event()

    async def __call__(self, event: ChannelEvent) -> None:
        self.events.append(event)
        self._something.set()
        if isinstance(event, Received):
            if self._watch is not None:
                self._watch(event)
            if len(self.received) in self._refuse:
                raise SpoolError("disk full")
            await event.ack()
            self._something.set()

    @property
    def received(self) -> list[Received]:
        return [event for event in self.events if isinstance(event, Received)]

    @property
    def late(self) -> list[int | None]:
        return [event.ref for event in self.events if isinstance(event, LateResult)]

    @property
    def states(self) -> list[str]:
        return [event.status.state.value for event in self.events if isinstance(event, StateChanged)]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._something.clear()
                await self._something.wait()


async def admit(sim: SimIdentity) -> str:
    """Every SIM is welcome."""
    return ""


def settings(peer: Peer, **changes: object) -> GsmSettings:
    values: dict[str, object] = {"name": "sim1", "port": str(peer.path), "timing": TIMING, "patience": PATIENCE}
    return GsmSettings(**{**values, **changes})  # type: ignore[arg-type]


def channel_at(peer: Peer, **changes: object) -> GsmChannel:
    return GsmChannel(settings(peer, **changes), SystemClock())


@contextlib.asynccontextmanager
async def opened(peer: Peer, **changes: object) -> AsyncIterator[GsmChannel]:
    """A channel that was brought up."""
    channel = channel_at(peer, **changes)
    await within(channel.open(admit))
    try:
        yield channel
    finally:
        await channel.close()


@contextlib.asynccontextmanager
async def running(channel: GsmChannel, sink: Collector) -> AsyncIterator[asyncio.Task[None]]:
    """`channel.run` in a task, which ends with the block."""
    task: asyncio.Task[None] = asyncio.create_task(channel.run(sink))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def within(work: Awaitable[T]) -> T:
    """Wait, but not for ever."""
    async with asyncio.timeout(DEADLINE_S):
        return await work


def segment(channel: GsmChannel, text: str = "hello", to: str = "+59898344484") -> Segment:
    return channel.plan(Message(1, to, text))[0]
