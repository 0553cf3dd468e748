"""What the simulator's tests share: a modem without a terminal, and a dialogue over a real one."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from gatewayd.modems.pdu import Address, StatusReport, Submit, decode_pdu, split
from gatewayd.modems.simulator.centre import SMSC_NUMBER, SmsCentre
from gatewayd.modems.simulator.interfaces import Row
from gatewayd.modems.simulator.modem import Modem
from gatewayd.modems.simulator.personality import PERSONALITIES
from gatewayd.modems.simulator.sim import SimCard, Store

DEADLINE_S = 20
CTRL_Z, ESC = b"\x1a", b"\x1b"


def submit_pdus(to: str, text: str, *, report: bool = True, ref: int = 7) -> list[tuple[int, bytes]]:
    """`text` as what AT+CMGS wants: the length of each TPDU and its PDU in hex."""
    parts = split(text, concat_ref=ref)
    tpdus = [Submit(Address.to_send(to), part, report=report).encode() for part in parts]
    return [(len(tpdu), b"00" + tpdu.hex().upper().encode()) for tpdu in tpdus]


def reports(text: str) -> list[tuple[int, int]]:
    """(TP-MR, TP-ST) of each +CDS in what a modem said."""
    found = []
    for line in text.split("+CDS: ")[1:]:
        _, report = decode_pdu(line.split("\r\n")[1])
        assert isinstance(report, StatusReport)
        found.append((report.mr, report.status))
    return found


class FakeTimers:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self._number = itertools.count()
        self._heap: list[tuple[float, int, FakeTimers.Entry]] = []

    class Entry:
        def __init__(self, work: Callable[[], object]) -> None:
            self.work: Callable[[], object] | None = work

        def cancel(self) -> None:
            self.work = None

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> Entry:
        entry = self.Entry(lambda: callback(*args))
        heapq.heappush(self._heap, (self.now + delay, next(self._number), entry))
        return entry

    def call_soon(self, callback: Callable[..., object], *args: Any) -> Entry:
        return self.call_later(0, callback, *args)

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.now, _, entry = heapq.heappop(self._heap)
            if entry.work is not None:
                entry.work()
        self.now = end


class FakeLine:
    def __init__(self) -> None:
        self.output = bytearray()
        self.plugged = True

    def write(self, data: bytes) -> None:
        if self.plugged:
            self.output += data

    def unplug(self) -> None:
        self.plugged = False


class Rig:
    """Modems on fake wires at one SMS centre; `rows` is its ledger."""

    def __init__(self, modems: int = 1, personality: str = "generic", report_delay_s: float = 1.0) -> None:
        self.timers = FakeTimers()
        self.rows: list[Row] = []
        self.centre = SmsCentre(self._record, self.timers, report_delay_s=report_delay_s)
        self.lines = [FakeLine() for _ in range(modems)]
        self.modems = [self._make(index, personality) for index in range(modems)]

    def _record(self, row: Row) -> None:
        row["n"] = len(self.rows)
        self.rows.append(row)

    def _make(self, index: int, personality: str) -> Modem:
        sim = self.make_sim(index, f"+5989900{index + 1:04d}")
        return Modem(
            f"modem{index}",
            PERSONALITIES[personality],
            "356938030000013",
            sim,
            line=self.lines[index],
            network=self.centre,
            timers=self.timers,
            record=self._record,
        )

    def make_sim(self, index: int, number: str) -> SimCard:
        sim = SimCard(f"89598990000000000{index:02d}", "74899" + "0" * 10, number, Store("SM", 10), SMSC_NUMBER)
        self.centre.add_sim(sim)
        return sim

    @property
    def modem(self) -> Modem:
        return self.modems[0]

    @property
    def sim(self) -> SimCard:
        assert self.modem.sim is not None
        return self.modem.sim

    def say(self, data: str | bytes, modem: int = 0) -> str:
        """Write to a modem and return all it has said since the last time."""
        self.modems[modem].feed(data.encode() if isinstance(data, str) else data)
        return self.heard(modem)

    def at(self, command: str, modem: int = 0) -> str:
        return self.say(f"AT{command}\r", modem)

    def heard(self, modem: int = 0) -> str:
        output = self.lines[modem].output.decode("ascii", "replace")
        self.lines[modem].output.clear()
        return output

    def quiet(self, modem: int = 0) -> None:
        """No echo, numeric errors, everything indicated."""
        for command in ("E0", "+CMEE=1", "+CNMI=2,1,0,1,0"):
            assert self.at(command, modem).endswith("\r\nOK\r\n")

    def send(self, to: str, text: str, modem: int = 0, **options: Any) -> str:
        """Submit a text; what the modem says after each Ctrl-Z."""
        answers = ""
        for length, pdu in submit_pdus(to, text, **options):
            assert self.at(f"+CMGS={length}", modem).endswith("\r\n> ")
            answers += self.say(pdu + CTRL_Z, modem)
        return answers

    def of(self, kind: str) -> list[Row]:
        return [row for row in self.rows if row["kind"] == kind]


class Gone(Exception):
    """The device vanished."""


class Dialogue:
    """A program at a real serial device: plain reads and writes."""

    def __init__(self, path: str) -> None:
        self.fd = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        self.text = ""
        self._arrived = asyncio.Event()
        self.gone = False
        asyncio.get_running_loop().add_reader(self.fd, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.text += data.decode("ascii", "replace")
        else:
            self.gone = True
            asyncio.get_running_loop().remove_reader(self.fd)
        self._arrived.set()

    def write(self, data: str | bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(self.fd, data.encode() if isinstance(data, str) else data)

    async def until(self, *ends: str) -> str:
        """What was said, up to and including the first of `ends`. Raises Gone if the device vanishes before."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                found = [(self.text.find(end), end) for end in ends if end in self.text]
                if found:
                    at, end = min(found)
                    said, self.text = self.text[: at + len(end)], self.text[at + len(end) :]
                    return said
                if self.gone:
                    raise Gone
                self._arrived.clear()
                await self._arrived.wait()

    async def until_gone(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not self.gone:
                self._arrived.clear()
                await self._arrived.wait()

    async def at(self, command: str) -> str:
        self.write(f"AT{command}\r")
        return await self.until("OK\r\n", "ERROR\r\n", "ERROR: ", "> ")

    async def quiet(self) -> None:
        for command in ("E0", "+CMEE=1", "+CNMI=2,1,0,1,0"):
            assert (await self.at(command)).endswith("\r\nOK\r\n")

    async def send(self, to: str, text: str, **options: Any) -> str:
        """Submit a text; what is said after the last Ctrl-Z, up to its final result."""
        said = ""
        for length, pdu in submit_pdus(to, text, **options):
            self.write(f"AT+CMGS={length}\r")
            await self.until("> ")
            self.write(pdu + CTRL_Z)
            said = await self.until("OK\r\n", "ERROR: ")
        return said

    def close(self) -> None:
        if not self.gone:
            asyncio.get_running_loop().remove_reader(self.fd)
        os.close(self.fd)


@asynccontextmanager
async def dialogue(path: str) -> AsyncIterator[Dialogue]:
    talk = Dialogue(path)
    try:
        yield talk
    finally:
        talk.close()
