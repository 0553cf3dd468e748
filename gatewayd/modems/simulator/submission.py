"""AT+CMGS in an emulated modem: prompt, PDU, the network's answer. Source: 3GPP TS 27.005 §3.5.1, §4.3."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gatewayd.errors import DecodeError
from gatewayd.modems import pdu
from gatewayd.modems.simulator.faults import Armed, Point
from gatewayd.modems.simulator.interfaces import AtError, Handle, cms

if TYPE_CHECKING:
    from gatewayd.modems.simulator.modem import Modem

MAX_TPDU = 164
MAX_DIGITS = 20
_MAX_HEX = 2 * (12 + MAX_TPDU) + 64  # what is longer is no PDU, and not worth keeping
_WHITE = b" \t\r\n\x00"


class Submission:
    """The one submission a modem may have under way, and the memory of the last one's end.

    Times are monotonic seconds: `cmgs_at` is when AT+CMGS was complete, `final_at` when the final result of the last
    submission was written (None: there was none yet).
    """

    def __init__(self, modem: Modem) -> None:
        self._modem = modem
        self.length = 0
        self.cmgs_at = 0.0
        self.final_at: float | None = None
        self._text = bytearray()
        self._fault: Armed | None = None
        self._timer: Handle | None = None
        self._late: list[Handle] = []

    # The dialogue

    def begin(self, length: int) -> None:
        """AT+CMGS=`length` was accepted."""
        self.length = length
        self.cmgs_at = self._modem.timers.time()
        self._text.clear()
        self._fault = self._modem.faults.draw()

    def prompt(self) -> None:
        if self._hit(Point.BEFORE_PROMPT):
            return
        self._modem.prompt()
        self._hit(Point.AFTER_PROMPT)

    def add(self, octets: bytes) -> None:
        """Part of the PDU."""
        if len(self._text) <= _MAX_HEX:
            self._text += octets

    def cancel(self) -> None:
        """ESC: nothing is sent."""
        self._modem.record({"kind": "cancelled", "modem": self._modem.name, "cmgs_at": self.cmgs_at})
        self._modem.finish("OK")

    def send(self) -> None:
        """Ctrl-Z: the PDU is complete."""
        notes = {
            "modem": self._modem.name,
            "cmgs_at": self.cmgs_at,
            "ctrl_z_at": self._modem.timers.time(),
            "prev_final_at": self.final_at,
        }
        if self._hit(Point.CTRL_Z, notes):
            return
        verdict = self.transmit(notes)
        if self._hit(Point.SENT, notes):
            return
        latency = self._modem.latency()
        if latency > 0:
            self._timer = self._modem.timers.call_later(latency, self._answer, verdict)
        else:
            self._answer(verdict)

    def transmit(self, notes: dict[str, Any]) -> int | AtError:
        """Hand the PDU to the network: the TP-MR it went with, or why it did not go."""
        try:
            centre, tpdu, submit = self._checked()
            sim = self._modem.require_sim("CMS")
            if not self._modem.is_registered():
                raise cms(331)
            if centre is None and not sim.smsc:
                raise cms(330)
            mr = sim.take_mr()
            self._modem.network.submit(sim, tpdu, submit, mr, notes)
        except AtError as error:
            return error
        return mr

    def _checked(self) -> tuple[pdu.Address | None, bytes, pdu.Submit]:
        """The PDU if it is hex, as long as announced and a SUBMIT; else CMS 304 and a row that says why."""
        text = bytes(self._text).translate(None, _WHITE)
        try:
            whole = bytes.fromhex(text.decode("ascii"))
            centre, tpdu = pdu.split_smsc(whole)
            if len(tpdu) != self.length:
                raise ValueError(f"AT+CMGS={self.length}, but the TPDU has {len(tpdu)} octets")
            submit = pdu.decode(tpdu, from_sc=False)
            assert isinstance(submit, pdu.Submit)
            if not 1 <= len(submit.destination.digits) <= MAX_DIGITS:
                raise ValueError(f"a destination of {len(submit.destination.digits)} digits")
        except (ValueError, DecodeError) as error:
            reason, raw = str(error), text.decode("ascii", "replace")
            self._modem.record({"kind": "malformed", "modem": self._modem.name, "reason": reason, "raw": raw})
            raise cms(304) from None
        return centre, tpdu, submit

    def _answer(self, verdict: int | AtError) -> None:
        self._timer = None
        if isinstance(verdict, AtError):
            self.answer_error(verdict)
            return
        if self._fault is not None and self._fault.kind.point in (Point.ANSWER, Point.ANSWERED):
            if self._hit(Point.ANSWER, verdict):
                return
            self._modem.information([f"+CMGS: {verdict}"])
            if self._hit(Point.ANSWERED):
                return
            self.finish("OK", verdict)
            return
        self.finish("OK", verdict, [f"+CMGS: {verdict}"])

    def answer_error(self, error: AtError) -> None:
        """A failure, as AT+CMEE says it."""
        modem = self._modem
        self.finish(error.line(modem.settings.cmee, modem.personality.bare_cms))

    def finish(self, result: str, mr: int | None = None, info: list[str] | None = None) -> None:
        """Write the end of the answer, and the ledger row that says when."""
        modem = self._modem
        self.final_at = modem.timers.time()
        modem.record({"kind": "answered", "modem": modem.name, "mr": mr, "result": result, "final_at": self.final_at})
        modem.finish(result, info or ())

    # Faults

    def _hit(self, point: Point, context: Any = None) -> bool:
        """Whether the fault drawn for this submission strikes here and does the rest itself."""
        fault = self._fault
        if fault is None or fault.kind.point is not point:
            return False
        self._fault = None
        fault.kind.strike(self._modem, fault.parameters, context)
        return True

    def later(self, delay_s: float, work: Callable[[], None]) -> None:
        """Something that happens after the modem has gone on to other commands, unless it loses power first."""
        self._late.append(self._modem.timers.call_later(delay_s, work))

    def forget(self) -> None:
        """Power is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for handle in self._late:
            handle.cancel()
        self._late.clear()
        self._fault = None
        self._text.clear()
