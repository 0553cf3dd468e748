"""The AT engine: bytes in, events out; commands in, bytes out. No I/O, no clock: that time passed is an input.

Everything that changes the state of a dialogue is in this file. How a line is read::

    bytes ─ split at CR and LF ─ strip noise ─ look (what kind of line) ─ RULES[state][look] ─ event

A `Look` depends on the line and the outstanding command, what becomes of it on the state: that is the one table below.
Three things cut across it: the prompt (only while awaited, at the start of a line), lines that belong to the line
before (the PDU after +CMT:, +CMGL:), and texts with line ends in them (+CUSD).

The events of a stream do not depend on how it is cut into pieces. Therefore a `>` at the start of a line is the prompt
as soon as it is there: to look at what follows would give another event for the same octets when they come one by one,
and would miss the prompt that a URC was glued to.

Source: 3GPP TS 27.007 §4 and §5, 27.005 §3 and §4; ITU-T V.250 §5; spec/gsm-modem.md §1 (sheet).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto

from gatewayd.errors import LocalProtocolError, RemoteProtocolError
from gatewayd.modems.at.commands import ATTENTION, WITHDRAWAL, Command
from gatewayd.modems.at.profiles import URC_LINES, URC_PREFIXES
from gatewayd.modems.at.results import TIMEOUT, Result, parse_final, parse_numeric

MAX_LINE = 4096  # octets; the longest honest line is an answer to AT+COPS=? or AT+CLAC
MAX_ANSWER_LINES = 2048  # a store has at most 255 messages; a modem that never ends an answer is broken
MAX_TEXT_LINES = 20  # a USSD text has at most 182 characters

ESCAPE = b"\x1b"
SUBSTITUTE = b"\x1a"  # Ctrl-Z
_NOISE = "\x00\xff\x1a\x1b \t"  # what boots, brown-outs and echoes leave around a line


class State(Enum):
    """What the engine waits for."""

    IDLE = auto()
    AWAIT_FINAL = auto()
    AWAIT_PROMPT = auto()
    AWAIT_PDU_FINAL = auto()
    RESYNC = auto()  # a final result may still be under way: none can be believed


@dataclass(frozen=True, slots=True)
class Info:
    """An information line of the outstanding command; `body` is the line it owns (the PDU), "" if there is none."""

    line: str
    body: str = ""


@dataclass(frozen=True, slots=True)
class Final:
    """The outstanding command is over."""

    result: Result


@dataclass(frozen=True, slots=True)
class Prompt:
    """The modem waits for the PDU."""


@dataclass(frozen=True, slots=True)
class Urc:
    """An unsolicited result code; `body` is the line it owns (the PDU of +CMT, +CDS, +CBM)."""

    line: str
    body: str = ""


@dataclass(frozen=True, slots=True)
class Late:
    """A +CMGS nobody waits for any more: the submission before was taken by the network."""

    line: str


@dataclass(frozen=True, slots=True)
class Garbage:
    """A line that belongs to nothing: noise, a stale final result, a URC no table knows. To be logged and counted."""

    line: str


Event = Info | Final | Prompt | Urc | Late | Garbage


class Look(Enum):
    """What kind of line it is, seen with the outstanding command."""

    RESULT = auto()  # OK, ERROR, +CMS ERROR: 38
    ANSWER = auto()  # begins like an answer to the outstanding command
    REF = auto()  # +CMGS: without AT+CMGS outstanding
    ECHO = auto()  # what we wrote
    URC = auto()  # known by a table
    STRANGER = auto()  # has a prefix no table knows
    PLAIN = auto()  # no prefix: a bare answer, a PDU, noise


class Act(Enum):
    """What becomes of a line."""

    FINISH = auto()
    ANSWER = auto()
    BARE = auto()  # an answer if the outstanding command has such, else garbage
    SYNC = auto()  # a final result during resynchronisation
    SYNC_ANSWER = auto()
    LATE = auto()
    URC = auto()
    DROP = auto()
    GARBAGE = auto()


_ALWAYS = {Look.REF: Act.LATE, Look.ECHO: Act.DROP, Look.URC: Act.URC, Look.STRANGER: Act.GARBAGE}
_RULES: dict[State, dict[Look, Act]] = {
    State.IDLE: {**_ALWAYS, Look.RESULT: Act.GARBAGE, Look.ANSWER: Act.GARBAGE, Look.PLAIN: Act.GARBAGE},
    State.AWAIT_FINAL: {**_ALWAYS, Look.RESULT: Act.FINISH, Look.ANSWER: Act.ANSWER, Look.PLAIN: Act.BARE},
    # A +CMGS before the PDU was written belongs to the submission before, and so does an OK (see `_finish`).
    State.AWAIT_PROMPT: {**_ALWAYS, Look.RESULT: Act.FINISH, Look.ANSWER: Act.LATE, Look.PLAIN: Act.GARBAGE},
    State.AWAIT_PDU_FINAL: {**_ALWAYS, Look.RESULT: Act.FINISH, Look.ANSWER: Act.ANSWER, Look.PLAIN: Act.GARBAGE},
    State.RESYNC: {**_ALWAYS, Look.RESULT: Act.SYNC, Look.ANSWER: Act.SYNC_ANSWER, Look.PLAIN: Act.BARE},
}

# In the answer to AT+CREG? the second field is a bare digit, in the URC it is missing or a quoted area code: sheet §1.
_REGISTRATION = re.compile(r"\+C(?:|G|E|5G)REG: ?")
_REGISTRATION_ANSWER = re.compile(r"\+C(?:|G|E|5G)REG: ?\d,\d(?:,|$)", re.ASCII)
_OWNERS = ("+CMT:", "+CDS:", "+CBM:")
_PDU_HEADER = re.compile(r"\+C(?:MT|DS|BM): ?(?:[^,]*,)? ?\d+", re.ASCII)
_TEXT_END = re.compile(r'"(?:\s*,\s*\d*)?\s*$', re.ASCII)
_HEX = re.compile(r"[0-9A-Fa-f]+", re.ASCII)
_SIGILS = frozenset("+^*#$%!&_")
_ALWAYS_URC = ("+CMTI:", "+CDSI:", "+CUSD:")


class Engine:
    """One side of one dialogue with one modem. `urc_prefixes` adds what a profile knows to the general table."""

    def __init__(self, urc_prefixes: tuple[str, ...] = ()) -> None:
        self.state = State.RESYNC  # who knows what the port was used for before
        self._urc_prefixes = URC_PREFIXES + urc_prefixes
        self._rest = ""  # what came after the last line end
        self._command: Command | None = None
        self._echo = ""
        self._pdu_echo = ""
        self._prompted = False
        self._answers = 0
        self._header = ""  # an information line that still waits for its body
        self._urc_header = ""  # the same for a URC
        self._urc_is_text = False  # …whose next line is a text that may look like anything
        self._open_text: list[str] = []
        self._asked = False
        self._probed = False
        self._sync_answered = False
        self._events: list[Event] = []

    @property
    def owed(self) -> bool:
        """Whether a URC announced a line that has not come: no command may be started before it did (sheet §1)."""
        return bool(self._urc_header or self._open_text)

    @property
    def probed(self) -> bool:
        """In RESYNC: whether a final result, of whatever command, came since the last `probe`."""
        return self._probed

    def learn(self, urc_prefixes: tuple[str, ...]) -> None:
        """Add the URCs of the modem's profile, known once it said what it is."""
        self._urc_prefixes = tuple(dict.fromkeys((*self._urc_prefixes, *urc_prefixes)))

    # -- what we say --

    def send(self, command: Command) -> bytes:
        """Begin a command; returns the bytes to write. Raises LocalProtocolError unless IDLE."""
        if self.state is not State.IDLE:
            raise LocalProtocolError(f"{command.text} while {self.state.name}")
        self._begin(command)
        self.state = State.AWAIT_PROMPT if command.prompted else State.AWAIT_FINAL
        return f"{command.text}\r".encode("ascii")

    def send_pdu(self, pdu: str) -> bytes:
        """Answer the prompt: `pdu` in hex, SMSC address included. Raises LocalProtocolError if there was no prompt."""
        if self.state is not State.AWAIT_PROMPT or not self._prompted:
            raise LocalProtocolError(f"a PDU while {self.state.name}")
        if not _HEX.fullmatch(pdu):
            raise LocalProtocolError("a PDU that is not hex")
        self._pdu_echo = pdu
        self.state = State.AWAIT_PDU_FINAL
        return pdu.encode("ascii") + SUBSTITUTE

    def cancel(self) -> bytes:
        """Withdraw a prompted command before its PDU. Any final result, also OK, then ends it."""
        if self.state is not State.AWAIT_PROMPT:
            raise LocalProtocolError(f"a withdrawal while {self.state.name}")
        self._begin(WITHDRAWAL)  # a +CMGS from now on is not the answer to anything
        self.state = State.AWAIT_FINAL
        return ESCAPE

    def timed_out(self) -> list[Event]:
        """The outstanding command took too long, or was given up: Final(TIMEOUT), and nothing is believed any more."""
        events = self._events = self.forgo()
        if self._command is not None and self.state is not State.RESYNC:
            self._flush_header()
            events.append(Final(TIMEOUT))
        self.state = State.RESYNC
        self._command = None
        self._prompted = self._asked = self._probed = self._sync_answered = False
        return events

    def forgo(self) -> list[Event]:
        """The line a URC announced did not come in time: what there is of it is garbage."""
        lost = [self._urc_header] if self._urc_header else []
        lost += self._open_text
        self._urc_header, self._urc_is_text, self._open_text = "", False, []
        return [Garbage(line) for line in lost]

    # -- resynchronisation: probe until something answers, then a question whose answer nothing else can be --

    def probe(self, command: Command = ATTENTION) -> bytes:
        """RESYNC: ask whether anybody listens. ERROR is as good an answer as OK."""
        self._begin_sync(command, asked=False)
        return f"{command.text}\r".encode("ascii")

    def question(self, command: Command) -> bytes:
        """RESYNC: ask `command`. Final results before its information line are discarded, the next one ends RESYNC."""
        self._begin_sync(command, asked=True)
        return f"{command.text}\r".encode("ascii")

    def trust(self) -> None:
        """RESYNC ends without an answered question: for modems that answer none, once nothing is under way."""
        if self.state is not State.RESYNC:
            raise LocalProtocolError(f"trust while {self.state.name}")
        self._command = None
        self.state = State.IDLE

    # -- what we hear --

    def receive(self, data: bytes) -> list[Event]:
        """The events in `data` and what was left over before it. Raises RemoteProtocolError beyond the limits above."""
        events = self._events = []
        lines = (self._rest + data.decode("latin-1")).replace("\r", "\n").split("\n")
        rest = lines.pop()
        for line in lines:
            line = line.strip(_NOISE)
            if line:
                if len(line) > MAX_LINE:
                    raise RemoteProtocolError(f"a line of more than {MAX_LINE} octets")
                if self.state is State.AWAIT_PROMPT:
                    line = self._take_prompt(line)
                if line:
                    self._take(line)
        if self.state is State.AWAIT_PROMPT and rest:
            rest = self._take_prompt(rest.lstrip(_NOISE))
        if len(rest) > MAX_LINE:
            rest = rest.lstrip(_NOISE)
            if len(rest) > MAX_LINE:
                self._rest = ""
                raise RemoteProtocolError(f"more than {MAX_LINE} octets without a line end")
        self._rest = rest
        return events

    def _take_prompt(self, line: str) -> str:
        """Recognise the prompt at the start of a line; returns what follows it."""
        if line[:1] != ">" or self._prompted or self._urc_is_text or self._open_text:
            return line
        self._prompted = True
        self._events.append(Prompt())
        return line[1:].lstrip(_NOISE)

    def _take(self, line: str) -> None:
        if self._open_text:
            self._take_text(line)
            return
        if self._urc_is_text:
            self._end_urc(line)
            return
        look = self._look(line)
        if look is Look.PLAIN:
            if self._urc_header:
                self._end_urc(line)
                return
            if self._header:
                self._events.append(Info(self._header, line))
                self._header = ""
                return
        match _RULES[self.state][look]:
            case Act.FINISH:
                self._finish(line)
            case Act.ANSWER:
                self._answer(line)
            case Act.BARE:
                self._bare(line)
            case Act.URC:
                self._urc(line)
            case Act.SYNC:
                self._synchronise(line)
            case Act.SYNC_ANSWER:
                self._sync_answered = self._asked
            case Act.LATE:
                self._events.append(Late(line))
            case Act.GARBAGE:
                self._events.append(Garbage(line))
            case Act.DROP:
                pass

    def _look(self, line: str) -> Look:
        if line == "OK":
            return Look.RESULT
        if line in (self._echo, self._pdu_echo):
            return Look.ECHO
        if line[0] not in _SIGILS:
            if parse_final(line) is not None:
                return Look.RESULT
            if line in URC_LINES or line.startswith(self._urc_prefixes):
                return Look.URC
            return Look.PLAIN
        command = self._command
        if command is not None and command.prefixes and line.startswith(command.prefixes):
            unsolicited = line.startswith(_ALWAYS_URC) or (
                _REGISTRATION.match(line) and not _REGISTRATION_ANSWER.match(line)
            )
            return Look.URC if unsolicited else Look.ANSWER
        if line.startswith("+CMGS:"):
            return Look.REF
        if parse_final(line) is not None:
            return Look.RESULT
        if line.startswith(self._urc_prefixes) or line in URC_LINES:
            return Look.URC
        return Look.STRANGER

    def _finish(self, line: str) -> None:
        result = parse_final(line)
        assert result is not None
        if result.ok and self.state is State.AWAIT_PROMPT:
            # Nothing is to be OK yet: the second half of a double final ("ERROR", then "OK") of the command before.
            self._events.append(Garbage(line))
            return
        self._end(result)

    def _end(self, result: Result) -> None:
        self._flush_header()
        self._events.append(Final(result))
        self._command = None
        self._prompted = False
        self.state = State.IDLE

    def _answer(self, line: str) -> None:
        self._flush_header()
        self._answers += 1
        if self._answers > MAX_ANSWER_LINES:
            raise RemoteProtocolError(f"an answer of more than {MAX_ANSWER_LINES} lines")
        if self._command is not None and self._command.body:
            self._header = line
        else:
            self._events.append(Info(line))

    def _bare(self, line: str) -> None:
        command = self._command
        if command is not None and command.numeric and (result := parse_numeric(line)) is not None:
            if self.state is State.RESYNC:
                self._probed = True
            else:
                self._end(result)
        elif command is not None and command.bare and self.state is State.AWAIT_FINAL:
            self._answer(line)
        else:
            self._events.append(Garbage(line))

    def _synchronise(self, line: str) -> None:
        self._probed = True
        if self._asked and self._sync_answered:
            self._command = None
            self.state = State.IDLE
        else:
            self._events.append(Garbage(line))

    def _urc(self, line: str) -> None:
        if line.startswith(_OWNERS):
            self._own(line)
        elif line.startswith("+CUSD:") and line.count('"') % 2:
            self._open_text = [line]
        else:
            self._events.append(Urc(line))

    def _own(self, line: str) -> None:
        if self._urc_header:
            self._events.append(Garbage(self._urc_header))
            self._urc_header = ""
        in_pdu_mode = _PDU_HEADER.fullmatch(line) is not None
        if not in_pdu_mode and line.startswith("+CDS:"):
            self._events.append(Urc(line))  # in text mode a report is one line: 27.005 §3.4.1
            return
        self._urc_header = line
        self._urc_is_text = not in_pdu_mode

    def _end_urc(self, body: str) -> None:
        self._events.append(Urc(self._urc_header, body))
        self._urc_header, self._urc_is_text = "", False

    def _take_text(self, line: str) -> None:
        """A line of a USSD text that has line ends in it; it may look like a final result."""
        self._open_text.append(line)
        if line.count('"') % 2 and _TEXT_END.search(line):
            self._events.append(Urc("\n".join(self._open_text)))
            self._open_text = []
        elif len(self._open_text) >= MAX_TEXT_LINES:
            self._events.extend(Garbage(lost) for lost in self._open_text)
            self._open_text = []

    def _begin(self, command: Command) -> None:
        self._command = command
        self._echo = command.text
        self._pdu_echo = ""
        self._prompted = False
        self._answers = 0

    def _begin_sync(self, command: Command, *, asked: bool) -> None:
        if self.state is not State.RESYNC:
            raise LocalProtocolError(f"{command.text} to resynchronise while {self.state.name}")
        self._begin(command)
        self._asked = asked
        self._probed = self._sync_answered = False

    def _flush_header(self) -> None:
        if self._header:
            self._events.append(Info(self._header))
            self._header = ""
