"""The simulator as a whole: modems on pseudo-terminals, their SMS centre, the ledger and the control socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gatewayd.modems.simulator.centre import SMSC_NUMBER, SmsCentre
from gatewayd.modems.simulator.control_server import ControlServer
from gatewayd.modems.simulator.ledger import Ledger
from gatewayd.modems.simulator.modem import Modem
from gatewayd.modems.simulator.personality import PERSONALITIES, Personality
from gatewayd.modems.simulator.port import PtyPort
from gatewayd.modems.simulator.sim import SimCard, Store, with_check_digit

LEDGER_NAME = "ledger.jsonl"
SOCKET_NAME = "control.sock"
MAX_MODEMS = 256


@dataclass(frozen=True, slots=True)
class Options:
    """What a simulator is started with. Modem i has the number `number_base` and i+1 in four digits."""

    directory: Path
    modems: int = 1
    latency_ms: float = 0.0
    report_delay_ms: float = 0.0
    personality: str = "generic"
    number_base: str = "+5989900"
    exit_on_eof: bool = False

    def check(self) -> None:
        """Raises ValueError that names what is wrong."""
        if not 1 <= self.modems <= MAX_MODEMS:
            raise ValueError(f"modems: 1 to {MAX_MODEMS}")
        if self.latency_ms < 0 or self.report_delay_ms < 0:
            raise ValueError("latency and report delay cannot be negative")
        if self.personality not in PERSONALITIES:
            raise ValueError(f"personality: one of {', '.join(PERSONALITIES)}")
        digits = self.number_base.removeprefix("+")
        if not self.number_base.startswith("+") or not digits.isdigit() or not 4 <= len(digits) <= 11:
            raise ValueError("number base: + and 4 to 11 digits")


class Simulator:
    """Everything the control socket acts on."""

    def __init__(self, options: Options) -> None:
        options.check()
        loop = asyncio.get_running_loop()
        self.options = options
        self.directory = options.directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.ledger = Ledger(self.directory / LEDGER_NAME, loop)
        self.centre = SmsCentre(self.ledger.append, loop, report_delay_s=options.report_delay_ms / 1000)
        self.sims: dict[str, SimCard] = {}
        self.modems: list[Modem] = []
        self.ports: list[PtyPort] = []
        personality = PERSONALITIES[options.personality]
        for index in range(options.modems):
            self._add_modem(index, personality, loop)

    def _add_modem(self, index: int, personality: Personality, loop: asyncio.AbstractEventLoop) -> None:
        sim = self.make_sim(index, f"{self.options.number_base}{index + 1:04d}")
        port = PtyPort(self.directory / f"modem{index}", lambda data: modem.feed(data))
        modem = Modem(
            f"modem{index}",
            personality,
            with_check_digit(f"35693803{index + 1:06d}"),
            sim,
            line=port,
            network=self.centre,
            timers=loop,
            record=self.ledger.append,
        )
        modem.latency_s = (self.options.latency_ms / 1000,) * 2
        self.modems.append(modem)
        self.ports.append(port)
        port.plug()

    def make_sim(self, index: int, number: str, iccid: str = "") -> SimCard:
        """A new SIM, known to the SMS centre by its number. Raises ValueError if there is one such already."""
        serial = len(self.sims) + 1
        iccid = iccid or with_check_digit(f"895989900{serial:09d}")
        if iccid in self.sims:
            raise ValueError(f"there is a SIM {iccid} already")
        personality = PERSONALITIES[self.options.personality]
        store = Store("SM", personality.stores["SM"], personality.index_base)
        sim = SimCard(iccid, f"74899{serial:010d}", number, store, SMSC_NUMBER)
        self.centre.add_sim(sim)
        self.sims[iccid] = sim
        return sim

    def close(self) -> None:
        for port in self.ports:
            port.close()
        self.ledger.close()


async def serve(options: Options) -> None:
    """Run until SIGTERM or SIGINT (or, if asked for, the end of standard input)."""
    simulator = Simulator(options)
    try:
        async with ControlServer(simulator, simulator.directory / SOCKET_NAME):
            with _told_to_end(options.exit_on_eof) as told:
                for modem, port in zip(simulator.modems, simulator.ports, strict=True):
                    assert modem.sim is not None
                    sys.stdout.write(f"{port.link} {modem.sim.number} {modem.sim.iccid}\n")
                sys.stdout.write("ready\n")
                sys.stdout.flush()
                gc.freeze()  # what is there now stays: the collector need not look at it again
                await told.wait()
    finally:
        simulator.close()


@contextlib.contextmanager
def _told_to_end(exit_on_eof: bool) -> Iterator[asyncio.Event]:
    """Set once somebody wants us to end."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    standard_input = 0

    def standard_input_ready() -> None:
        if not os.read(standard_input, 4096):
            told.set()
            loop.remove_reader(standard_input)

    for number in signals:
        loop.add_signal_handler(number, told.set)
    if exit_on_eof:
        loop.add_reader(standard_input, standard_input_ready)
    try:
        yield told
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
        if exit_on_eof:
            loop.remove_reader(standard_input)


def run(options: Options) -> None:
    """`serve` in an event loop of its own. Raises ValueError for options that make no sense, OSError for the folder."""
    options.check()
    with contextlib.suppress(BrokenPipeError):  # whoever read our output has gone: so do we
        asyncio.run(serve(options))
