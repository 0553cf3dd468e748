"""What can be made to go wrong with a submission, by name.

A fault is armed for the next submission of a modem, or the next few, or one further on; it is drawn at AT+CMGS and
strikes at its point. A new fault is a new line in `FAULTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from gatewayd.modems.simulator.interfaces import AtError, cms

if TYPE_CHECKING:
    from gatewayd.modems.simulator.modem import Modem


class Point(StrEnum):
    """Where in a submission a fault strikes."""

    BEFORE_PROMPT = "before_prompt"  # AT+CMGS was read
    AFTER_PROMPT = "after_prompt"  # and answered with the prompt
    CTRL_Z = "after_ctrl_z_not_sent"  # the PDU is complete; the SMS centre has nothing
    SENT = "after_ctrl_z_sent"  # the SMS centre has it; +CMGS is not written
    ANSWER = "instead_of_cmgs"  # the latency is over
    ANSWERED = "after_cmgs"  # +CMGS is written, OK is not


Parameters = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A named fault. `strike(modem, parameters, context)` does what is to happen instead of the rest.

    `context` is the ledger notes of the submission at CTRL_Z and SENT, its TP-MR at ANSWER, otherwise None. `defaults`
    are the parameters and their values where none are given.
    """

    name: str
    point: Point
    strike: Callable[[Modem, Parameters, Any], None]
    what: str
    defaults: Parameters = field(default_factory=dict)


@dataclass(slots=True)
class Armed:
    """A fault that waits: it lets `skip` submissions pass and then strikes `count` times."""

    kind: Kind
    parameters: Parameters
    count: int = 1
    skip: int = 0


class FaultPlan:
    """The faults armed for one modem. At most one strikes a submission: the first armed that is due."""

    def __init__(self) -> None:
        self._armed: list[Armed] = []

    def arm(self, name: str, *, count: int = 1, skip: int = 0, parameters: Parameters | None = None) -> None:
        """Arm a fault. Raises ValueError for a name or parameter there is none of."""
        kind = FAULTS.get(name)
        if kind is None:
            raise ValueError(f"no such fault: {name}; there are {', '.join(FAULTS)}")
        given = dict(parameters or {})
        if unknown := given.keys() - kind.defaults.keys():
            raise ValueError(f"fault {name} has no parameter {', '.join(sorted(unknown))}")
        if count < 1 or skip < 0:
            raise ValueError("count must be at least 1, skip at least 0")
        self._armed.append(Armed(kind, {**kind.defaults, **given}, count, skip))

    def draw(self) -> Armed | None:
        """The fault for the submission that begins now."""
        if not self._armed:
            return None
        due = next((armed for armed in self._armed if armed.skip == 0), None)
        for armed in self._armed:
            if armed.skip:
                armed.skip -= 1
        if due is not None:
            due.count -= 1
            if due.count == 0:
                self._armed.remove(due)
        return due

    def clear(self) -> None:
        self._armed.clear()

    def names(self) -> list[str]:
        """What is still armed."""
        return [armed.kind.name for armed in self._armed]


def _unplug(modem: Modem, _: Parameters, __: Any) -> None:
    modem.unplug()


def _restart(modem: Modem, parameters: Parameters, _: Any) -> None:
    modem.restart(float(parameters["start_s"]))


def _no_prompt(modem: Modem, _: Parameters, __: Any) -> None:
    modem.leave_unanswered()


def _late_prompt(modem: Modem, parameters: Parameters, _: Any) -> None:
    modem.submission.later(float(parameters["after_s"]), modem.prompt)


def _silent(modem: Modem, parameters: Parameters, notes: Any) -> None:
    if parameters["sent"]:
        modem.submission.transmit(notes)
    modem.leave_unanswered()


def _late(modem: Modem, parameters: Parameters, notes: Any) -> None:
    verdict = modem.submission.transmit(notes) if parameters["sent"] else cms(int(parameters["code"]))

    def answer() -> None:
        if isinstance(verdict, AtError):
            modem.urc(verdict.line(modem.settings.cmee, modem.personality.bare_cms))
        else:
            modem.urc(f"+CMGS: {verdict}\r\n\r\nOK")

    modem.leave_unanswered()
    modem.submission.later(float(parameters["after_s"]), answer)


def _cms_error(modem: Modem, parameters: Parameters, notes: Any) -> None:
    code = int(parameters["code"])
    if parameters["sent"]:
        modem.submission.transmit(notes)
    else:
        modem.record({"kind": "refused", "by": "modem", "code": code, **notes})
    modem.submission.answer_error(cms(code))


def _no_ok(modem: Modem, _: Parameters, __: Any) -> None:
    modem.leave_unanswered()


def _no_cmgs(modem: Modem, _: Parameters, mr: Any) -> None:
    modem.submission.finish("OK", mr)


def _zero_mr(modem: Modem, _: Parameters, mr: Any) -> None:
    modem.submission.finish("OK", mr, ["+CMGS: 0"])


_PHASES = (Point.BEFORE_PROMPT, Point.AFTER_PROMPT, Point.CTRL_Z, Point.SENT, Point.ANSWERED)

FAULTS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        *(Kind(f"unplug_{point}", point, _unplug, "the modem is pulled out") for point in _PHASES),
        *(
            Kind(f"restart_{point}", point, _restart, "the modem restarts by itself", {"start_s": 0.1})
            for point in _PHASES
        ),
        Kind("no_prompt", Point.BEFORE_PROMPT, _no_prompt, "no prompt comes; the next command is obeyed"),
        Kind("late_prompt", Point.BEFORE_PROMPT, _late_prompt, "the prompt comes after `after_s`", {"after_s": 1.0}),
        Kind("silent", Point.CTRL_Z, _silent, "no final result ever", {"sent": True}),
        Kind(
            "late",
            Point.CTRL_Z,
            _late,
            "the final result comes after `after_s`; commands are obeyed before",
            {"after_s": 1.0, "sent": True, "code": 332},
        ),
        Kind("cms_error", Point.CTRL_Z, _cms_error, "+CMS ERROR: `code`", {"code": 38, "sent": False}),
        Kind("no_ok", Point.ANSWERED, _no_ok, "+CMGS without OK"),
        Kind("no_cmgs", Point.ANSWER, _no_cmgs, "OK without +CMGS"),
        Kind("zero_mr", Point.ANSWER, _zero_mr, "+CMGS: 0, whatever the TP-MR was"),
    )
}
