"""One submission: how far it came, and what is therefore known of the segment. Pure.

Source: spec/gsm-modem.md §3 "Outcome when something breaks".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gatewayd.errors import SubmitError
from gatewayd.model import FailureClass, Outcome, Receipt
from gatewayd.modems.at.answers import submit_ref
from gatewayd.modems.at.engine import Info
from gatewayd.modems.at.results import Kind, Phase, Result, judge


@dataclass(slots=True)
class Submission:
    """Filled in while a submission goes, so that it can be judged wherever it broke.

    `started_ms`: UTC epoch at AT+CMGS, None before. `handed_over_at`: monotonic time at which writing the PDU began,
    None before. `lines`: information lines. `withdrawn`: the gate said no. `result`: the final result; TIMEOUT if none
    came. `lost`: why the link ended before it.
    """

    started_ms: int | None = None
    handed_over_at: float | None = None
    lines: list[Info] = field(default_factory=list)
    withdrawn: bool = False
    result: Result | None = None
    lost: str = ""

    @property
    def handed_over(self) -> bool:
        return self.handed_over_at is not None

    def conclude(self, *, now_s: float, finished_ms: int, vendor: str = "") -> Receipt:
        """The receipt, or SubmitError. `now_s` is monotonic, `vendor` the family of codes beyond 511."""
        if not self.handed_over:
            raise self._not_sent(vendor)
        assert self.started_ms is not None
        assert self.handed_over_at is not None
        line = next((info.line for info in self.lines if info.line.startswith("+CMGS:")), None)
        if line is not None or (self.result is not None and self.result.ok):
            # +CMGS without its OK, or OK without +CMGS: the network has it either way.
            return Receipt(submit_ref(line), self.started_ms, finished_ms)
        if self.result is None:
            said = self.lost or "no result"
            raise SubmitError(Outcome.IN_DOUBT, FailureClass.UNKNOWN, said, started_ms=self.started_ms)
        verdict = judge(Phase.AFTER_PDU, self.result, now_s - self.handed_over_at, vendor)
        if verdict.outcome is Outcome.SENT:
            return Receipt(None, self.started_ms, finished_ms)
        raise SubmitError(
            verdict.outcome, verdict.failure, verdict.text, code=str(self.result), started_ms=self.started_ms
        )

    def _not_sent(self, vendor: str) -> SubmitError:
        """Why not one octet of the PDU was written."""
        code, failure = "", FailureClass.DEVICE
        if self.lost:
            text = self.lost
        elif self.withdrawn or self.result is None:
            text = "withdrawn before the PDU was written"
        elif self.result.kind is Kind.TIMEOUT:
            text = "no prompt for the PDU"
        else:
            verdict = judge(Phase.BEFORE_PDU, self.result, 0, vendor)
            text, failure, code = verdict.text, verdict.failure, str(self.result)
        return SubmitError(Outcome.NOT_SENT, failure, text, code=code, started_ms=self.started_ms)
