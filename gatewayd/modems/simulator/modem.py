"""One emulated modem, byte by byte: its command line, its settings, its power.

Octets come in by `feed`, answers and unsolicited results go out through its `Line`. It knows no file and no socket;
time is a `Timers`. What it does with short messages is in `submission` and `reception`, its commands are in `commands`
and `sms_commands`.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from gatewayd.modems.simulator import atline, commands, sms_commands
from gatewayd.modems.simulator.atline import Command, LineError
from gatewayd.modems.simulator.faults import FaultPlan
from gatewayd.modems.simulator.interfaces import AtError, Handle, Line, Network, Record, Timers, cme, cms
from gatewayd.modems.simulator.personality import Personality
from gatewayd.modems.simulator.reception import Reception
from gatewayd.modems.simulator.sim import SimCard, Store
from gatewayd.modems.simulator.submission import Submission

LINE_LIMIT = 2048  # octets of a command line
INPUT_LIMIT = 1 << 16  # octets kept while a command runs; a real modem's buffer is smaller
REGISTERED = frozenset({1, 5, 6, 7})
_NUMERIC = {"OK": "0", "NO CARRIER": "3", "ERROR": "4"}
_NOISE = b"\x00\xfe\xff\r\n"
_CR = 0x0D
_CONTROL = re.compile(rb"[\x00-\x07\x09-\x1f\x7f-\xff]")


class State(Enum):
    """What the next octet is part of."""

    COMMAND = "command"
    PDU = "pdu"  # after the prompt
    BUSY = "busy"  # a command runs; input waits
    OFF = "off"  # unplugged or starting: input is lost


@dataclass(slots=True)
class Settings:
    """What a restart forgets. `cnmi` is <mode>,<mt>,<bm>,<ds>,<bfr>; `mem` the three stores of AT+CPMS."""

    echo: bool = True
    verbose: bool = True
    quiet: bool = False
    cmee: int = 0
    csms: int = 0
    cmms: int = 0
    cscs: str = "GSM"
    cops_format: int = 0
    cnmi: list[int] = field(default_factory=lambda: [0, 0, 0, 0, 0])
    mem: list[str] = field(default_factory=list)
    registration: dict[str, int] = field(default_factory=lambda: {"+CREG": 0, "+CGREG": 0, "+CEREG": 0})


class Modem:
    """A modem with a SIM in it or not. `latency_s` is the range of times between Ctrl-Z and +CMGS."""

    def __init__(
        self,
        name: str,
        personality: Personality,
        imei: str,
        sim: SimCard | None,
        *,
        line: Line,
        network: Network,
        timers: Timers,
        record: Record,
    ) -> None:
        self.name: str = name
        self.personality: Personality = personality
        self.imei: str = imei
        self.line = line
        self.network = network
        self.timers = timers
        self.record = record
        self.stores = {
            store: Store(store, size, personality.index_base)
            for store, size in personality.stores.items()
            if store != "SM"
        }
        self.settings = self._factory_settings()
        self.profile = self._factory_settings()
        self.registration = dict.fromkeys(self.settings.registration, 1)
        self.rssi = 22
        self.cfun = 1
        self.latency_s = (0.0, 0.0)
        self.faults = FaultPlan()
        self.state = State.COMMAND
        self.after_final: Callable[[], None] | None = None
        self.submission = Submission(self)
        self.reception = Reception(self)
        self.sim = sim
        if sim is not None:
            sim.modem = self
        self._input = bytearray()
        self._line = bytearray()
        self._last_line = ""
        self._urcs: list[str] = []
        self._processing = False
        self._start: Handle | None = None

    def _factory_settings(self) -> Settings:
        return Settings(mem=[self.personality.default_store] * 3)

    # What comes in

    def feed(self, data: bytes) -> None:
        """Octets from the program. Any octets: nothing raises."""
        if self.state is State.OFF:
            return
        room = INPUT_LIMIT - len(self._input)
        self._input += data if len(data) <= room else data[:room]
        self.resume()

    def resume(self) -> None:
        """Go on with what has come in."""
        if self._processing:
            return
        self._processing = True
        try:
            while self._input and self.state in (State.COMMAND, State.PDU):
                if self.state is State.COMMAND:
                    self._take_line()
                else:
                    self._take_pdu()
        finally:
            self._processing = False

    def _take_line(self) -> None:
        end = self._input.find(b"\r") + 1
        piece = bytes(self._input[:end] if end else self._input)
        del self._input[: len(piece)]
        if self.settings.echo:
            self.line.write(piece)
        if len(self._line) < LINE_LIMIT:
            self._line += piece
        if end:
            line, self._line = bytes(self._line), bytearray()
            self._do_line(line)

    def _do_line(self, raw: bytes) -> None:
        text = _edited(raw)
        upper = text[:2].upper()
        if upper == "A/":
            text = self._last_line
        else:
            if upper != "AT":
                at = text.upper().find("AT")  # whatever precedes it is noise
                if at < 0:
                    return
                text = text[at:]
            text = text[2:]
            self._last_line = text
        if len(raw) >= LINE_LIMIT:
            self.finish("ERROR")
        else:
            self._execute(text)

    def _take_pdu(self) -> None:
        """Up to Ctrl-Z, which sends, or ESC, which cancels; whatever is longer than a PDU can be is cut."""
        ends = [at for at in (self._input.find(b"\x1a"), self._input.find(b"\x1b")) if at >= 0]
        end = min(ends, default=-1)
        piece = bytes(self._input if end < 0 else self._input[: end + 1])
        del self._input[: len(piece)]
        if self.settings.echo:
            self.line.write(piece)
        if end < 0:
            self.submission.add(piece)
            return
        self.submission.add(piece[:-1])
        self.state = State.BUSY
        if piece.endswith(b"\x1a"):
            self.submission.send()
        else:
            self.submission.cancel()

    def _execute(self, text: str) -> None:
        output: list[str] = []
        result = "OK"
        try:
            for command in atline.parse(text):
                answer = self._answer(command)
                if answer is None:  # it prompts
                    self._emit(output)
                    self.submission.prompt()
                    return
                output += answer
        except AtError as error:
            result = error.line(self.settings.cmee, self.personality.bare_cms)
        except LineError:
            result = "ERROR"
        self._emit(output, result)
        after, self.after_final = self.after_final, None
        if after is not None:
            after()

    def _answer(self, command: Command) -> Sequence[str] | None:
        handler = sms_commands.HANDLERS.get(command.name) or commands.HANDLERS.get(command.name)
        if handler is not None:
            return handler(self, command)
        fixed = self.personality.fixed.get(command.text.upper())
        if fixed is None:
            raise AtError("", result=self.personality.unknown)
        sim = self.require_sim(unlocked=False) if any("{" in line for line in fixed) else None
        if sim is None:
            return fixed
        values = {"iccid": sim.iccid, "pin_tries": sim.pin_tries, "puk_tries": sim.puk_tries}
        return [line.format_map(values) for line in fixed]

    # What goes out

    def _emit(self, lines: Sequence[str], result: str = "") -> None:
        if self.settings.verbose:
            text = "".join([f"\r\n{line}\r\n" for line in lines])
        else:
            text = "".join([f"{line}\r\n" for line in lines])
        if result and not self.settings.quiet:
            if self.settings.verbose or result not in _NUMERIC:
                text += f"\r\n{result}\r\n"
            else:
                text += f"{_NUMERIC[result]}\r"
        if text:
            self.line.write(text.encode("ascii", "replace"))

    def finish(self, result: str, info: Sequence[str] = ()) -> None:
        """The final result of what ran, and on with what waits."""
        self._emit(info, result)
        self.state = State.COMMAND
        self._release()
        self.resume()

    def information(self, lines: Sequence[str]) -> None:
        """Information lines whose final result comes later."""
        self._emit(lines)

    def prompt(self) -> None:
        """Ask for the PDU. Unsolicited results wait from here to Ctrl-Z."""
        self.state = State.PDU
        self.line.write(b"\r\n> ")

    def leave_unanswered(self) -> None:
        """Take commands again without a final result: a fault."""
        self.state = State.COMMAND
        self._release()
        self.resume()

    def urc(self, text: str) -> None:
        """An unsolicited result; its lines are separated by CR LF."""
        if self.state is State.PDU:
            self._urcs.append(text)
        elif self.state is not State.OFF:
            self.line.write(f"\r\n{text}\r\n".encode("ascii", "replace"))

    def raw(self, data: bytes) -> None:
        """Any octets, now."""
        self.line.write(data)

    def _release(self) -> None:
        waiting, self._urcs = self._urcs, []
        for text in waiting:
            self.urc(text)

    # The SIM and the network

    def require_sim(self, kind: str = "CME", *, unlocked: bool = True) -> SimCard:
        """The SIM. Raises AtError if there is none, or if its PIN is wanted and `unlocked` demands more."""
        error = cme if kind == "CME" else cms
        if self.sim is None:
            raise error(10 if kind == "CME" else 310)
        lock = self.sim.lock
        if unlocked and lock == "SIM PIN":
            raise error(11 if kind == "CME" else 311)
        if unlocked and lock == "SIM PUK":
            raise error(12 if kind == "CME" else 316)
        return self.sim

    def insert_sim(self, sim: SimCard | None) -> None:
        """Exchange the SIM (None: take it out)."""
        if self.sim is not None:
            self.reception.forget()
            self.sim.modem = None
            self.sim = None
            self.urc("+CPIN: NOT READY")
        self.sim = sim
        if sim is not None:
            if sim.modem is not None:
                sim.modem.insert_sim(None)
            sim.modem = self
            sim.power_up()
            self.urc(f"+CPIN: {sim.lock}")
            self.service_changed()

    def store(self, name: str) -> Store | None:
        """A message store by its name; None if there is none such, or no SIM for it."""
        if name == "SM":
            return self.sim.store if self.sim is not None else None
        return self.stores.get(name)

    def registration_of(self, command: str) -> int:
        """<stat> for +CREG, +CGREG or +CEREG."""
        if self.cfun != 1 or self.sim is None or self.sim.lock != "READY":
            return 0
        return self.registration[command]

    def is_registered(self) -> bool:
        return any(self.registration_of(command) in REGISTERED for command in self.registration)

    def is_reachable(self) -> bool:
        """Whether the network can hand it a message."""
        return self.state is not State.OFF and self.is_registered()

    def set_registration(self, stats: dict[str, int]) -> None:
        """Move to other <stat>s; reported where that was asked for (AT+CREG=1)."""
        before = {command: self.registration_of(command) for command in self.registration}
        self.registration.update(stats)
        self.service_changed(before)

    def service_changed(self, before: dict[str, int] | None = None) -> None:
        """Report what changed of the registration, and let the network try."""
        for command, n in self.settings.registration.items():
            stat = self.registration_of(command)
            if n and before is not None and before[command] != stat:
                self.urc(f"{command}: {stat}" + (commands.CELL if n == 2 else ""))
        if self.sim is not None and self.is_reachable():
            self.network.pump(self.sim)

    def latency(self) -> float:
        """Seconds until the network answers the next submission."""
        low, high = self.latency_s
        return low if low == high else random.uniform(low, high)

    # Power

    def reset_settings(self, profile: Settings | None = None) -> None:
        """ATZ (`profile`: what AT&W kept) or AT&F."""
        self.settings = self._factory_settings()
        if profile is not None:
            for name in ("echo", "verbose", "quiet", "cmee"):
                setattr(self.settings, name, getattr(profile, name))

    def unplug(self) -> None:
        """Pull the modem out. The SIM keeps its messages and its TP-MR, the network what it has accepted."""
        self._power_off()
        self.line.unplug()

    def restart(self, start_s: float = 0.1) -> None:
        """Lose power and start: deaf for `start_s`, then noise, then what the model says while starting."""
        self._power_off()
        self._start = self.timers.call_later(start_s, self.power_on)

    def _power_off(self) -> None:
        self.state = State.OFF
        self.submission.forget()
        self.reception.forget()
        self._input.clear()
        self._line.clear()
        self._urcs.clear()
        if self._start is not None:
            self._start.cancel()
            self._start = None

    def power_on(self) -> None:
        """Start with the settings of the stored profile."""
        self.reset_settings(self.profile)
        self.cfun = 1
        if self.sim is not None:
            self.sim.power_up()
        self.state = State.COMMAND
        self.line.write(_NOISE)
        for text in self.personality.boot:
            if not text.startswith("+CPIN"):
                self.urc(text)
            elif self.sim is not None:
                self.urc(f"+CPIN: {self.sim.lock}")
        self.service_changed()


def _edited(raw: bytes) -> str:
    """A command line as typed: control characters dropped, backspace obeyed."""
    if _CONTROL.search(raw):
        raw = _CONTROL.sub(b"", raw)
    if b"\x08" in raw:
        kept = bytearray()
        for octet in raw:
            if octet != 0x08:
                kept.append(octet)
            elif kept:
                kept.pop()
        raw = bytes(kept)
    return raw.decode("ascii")
