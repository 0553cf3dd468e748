"""The emulated SMS centre: takes TPDUs from modems, routes them, reports, and delivers to modems what is for them."""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from gatewayd.errors import EncodeError
from gatewayd.modems import pdu
from gatewayd.modems.pdu import Address, Deliver, StatusReport, Submit, Timestamp, UserData
from gatewayd.modems.simulator import subscribers
from gatewayd.modems.simulator.interfaces import Intake, Record, Row, Timers, cms
from gatewayd.modems.simulator.sim import SimCard
from gatewayd.modems.simulator.subscribers import Fate, Verdict

SMSC_NUMBER = "+59899999000"
MAX_INCOMPLETE = 10_000  # long messages with parts missing that are remembered
MAX_ANSWER = 1000  # characters of a message that are quoted in the answer to it
_TAIL = 8  # the digits by which a number is found however it is written


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A TPDU that was accepted; `n` is its row in the ledger."""

    n: int
    sim: SimCard
    submit: Submit
    mr: int
    scts: Timestamp
    fate: Fate


@dataclass(slots=True, eq=False)
class _Waiting:
    """A TPDU on its way to a modem; `row` becomes the ledger's once it has arrived."""

    pdu: str
    length: int
    report: bool
    message_class: int | None
    row: Row
    taken: Callable[[], None] | None = None
    how: str = ""


class SmsCentre:
    """One SMS centre for all modems of a simulator.

    `report_delay_s` is from submission to delivery (and its report), `expiry_delay_s` to the report that gives up,
    `redelivery_s` how long it waits after a modem did not acknowledge.
    """

    def __init__(self, record: Record, timers: Timers, *, report_delay_s: float = 0.0) -> None:
        self._record = record
        self._timers = timers
        self.report_delay_s = report_delay_s
        self.expiry_delay_s = max(5 * report_delay_s, 0.05)
        self.redelivery_s = 5.0
        self._prefix = pdu.encode_smsc(Address.to_send(SMSC_NUMBER)).hex().upper()
        self._sims: dict[str, SimCard] = {}
        self._queues: dict[SimCard, tuple[deque[_Waiting], deque[_Waiting]]] = {}
        self._pending: dict[SimCard, deque[_Waiting]] = {}
        self._parts: OrderedDict[tuple[object, ...], dict[int, _Accepted]] = OrderedDict()
        self._stopped: set[tuple[str, str]] = set()
        self._next_ref = 0

    def add_sim(self, sim: SimCard) -> None:
        """Route messages to the SIM's number to it. Raises ValueError if another SIM has it."""
        tail = _tail(sim.number)
        if self._sims.setdefault(tail, sim) is not sim:
            raise ValueError(f"another SIM has the number {sim.number}")
        self._queues[sim] = (deque(), deque())

    def waiting(self, sim: SimCard) -> int:
        """How many TPDUs the SMS centre keeps for a SIM."""
        return sum(len(queue) for queue in self._queues[sim])

    # From a modem

    def submit(self, sim: SimCard, tpdu: bytes, submit: Submit, mr: int, notes: Mapping[str, Any]) -> None:
        """Accept or refuse a TPDU. Raises AtError with the CMS code of a refusal."""
        to = submit.destination.text
        target = self._sims.get(_tail(to))
        fate = _TO_MODEM if target is not None else subscribers.fate(submit.destination.digits)
        concat = submit.user_data.concat
        row: Row = {
            "kind": "submit",
            "from": sim.number,
            "to": to,
            "mr": mr,
            "ref": concat.ref if concat else None,
            "total": concat.total if concat else 1,
            "seq": concat.seq if concat else 1,
            "text": submit.user_data.text,
            "tpdu": tpdu.hex().upper(),
            "report": submit.report,
            "verdict": fate.verdict.value,
            **notes,
        }
        if fate.verdict is Verdict.REFUSED:
            self._record({**row, "kind": "refused", "by": "network", "code": fate.code})
            raise cms(fate.code)
        self._record(row)
        accepted = _Accepted(row["n"], sim, submit, mr, Timestamp(int(time.time())), fate)
        self._later(self.report_delay_s, partial(self._conclude, accepted, target))

    def _later(self, delay_s: float, work: Callable[[], None]) -> None:
        if delay_s > 0:
            self._timers.call_later(delay_s, work)
        else:
            self._timers.call_soon(work)

    def _conclude(self, accepted: _Accepted, target: SimCard | None) -> None:
        """The message reaches who it is for, or does not."""
        fate = accepted.fate
        if target is not None:
            self._forward(accepted, target)
        elif fate.verdict is Verdict.NEVER:
            self._report(accepted, subscribers.STATUS_TRYING)
            rest = max(self.expiry_delay_s - self.report_delay_s, 0.0)
            self._later(rest, partial(self._report, accepted, subscribers.STATUS_EXPIRED))
        else:
            if fate.verdict is not Verdict.FAILS and fate.code < subscribers.STATUS_TRYING:
                self._reach(accepted)
            if fate.verdict is not Verdict.SILENT:
                self._report(accepted, fate.code)

    def _report(self, accepted: _Accepted, status: int) -> None:
        if not accepted.submit.report:
            return
        recipient = accepted.submit.destination
        report = StatusReport(accepted.mr, recipient, accepted.scts, Timestamp(int(time.time())), status)
        row: Row = {
            "kind": "report",
            "number": accepted.sim.number,
            "to": recipient.text,
            "mr": accepted.mr,
            "status": status,
            "submit": accepted.n,
        }
        self._enqueue(accepted.sim, report.encode(), row, report=True)

    # To an emulated subscriber

    def _reach(self, accepted: _Accepted) -> None:
        """One part arrives at the subscriber; the last one completes the message."""
        concat = accepted.submit.user_data.concat
        if concat is None:
            self._read([accepted])
            return
        key = (accepted.sim.number, accepted.submit.destination.text, concat.ref, concat.bits, concat.total)
        parts = self._parts.setdefault(key, {})
        parts[concat.seq] = accepted
        if len(parts) == concat.total:
            del self._parts[key]
            self._read([parts[seq] for seq in sorted(parts)])
        elif len(self._parts) > MAX_INCOMPLETE:
            self._parts.popitem(last=False)

    def _read(self, parts: list[_Accepted]) -> None:
        """The subscriber has the whole message, and may answer."""
        first = parts[0]
        contents = [part.submit.user_data for part in parts]
        text = pdu.join_text(contents)
        subscriber = first.submit.destination
        row: Row = {
            "kind": "delivered",
            "from": first.sim.number,
            "to": subscriber.text,
            "text": text,
            "parts": len(parts),
            "submits": [part.n for part in parts],
        }
        if any(content.alphabet is pdu.Alphabet.DATA8 for content in contents):
            row["data"] = b"".join(content.data for content in contents).hex().upper()
        self._record(row)
        if first.fate.verdict is Verdict.ANSWERS:
            self.send_text(first.sim, subscriber, f"Re: {text[:MAX_ANSWER]}")
        elif first.fate.verdict is Verdict.STOPS:
            pair = (subscriber.text, first.sim.number)
            if pair not in self._stopped:
                self._stopped.add(pair)
                self.send_text(first.sim, subscriber, "STOP")

    # To a modem

    def send_text(self, sim: SimCard, sender: Address, text: str, *, message_class: int | None = None) -> None:
        """A message from `sender` to a SIM, in as many parts as it takes. Raises EncodeError."""
        self._next_ref = (self._next_ref + 1) % 256
        scts = Timestamp(int(time.time()))
        for part in pdu.split(text, concat_ref=self._next_ref, message_class=message_class):
            self._send(sim, Deliver(sender, part, scts))

    def send_tpdu(self, sim: SimCard, tpdu: bytes) -> None:
        """Any octets as a message to a SIM, decodable or not."""
        self._enqueue(sim, tpdu, {"kind": "inbound", "from": None, "to": sim.number, "text": None})

    def _forward(self, accepted: _Accepted, target: SimCard) -> None:
        sender = Address.to_send(accepted.sim.number)
        submit = accepted.submit
        deliver = Deliver(sender, submit.user_data, accepted.scts, submit.pid, report_indicator=submit.report)
        try:
            self._send(target, deliver, partial(self._report, accepted, subscribers.STATUS_DELIVERED))
        except EncodeError:  # more user data than a DELIVER holds
            self._report(accepted, subscribers.STATUS_INCOMPATIBLE)

    def _send(self, sim: SimCard, deliver: Deliver, taken: Callable[[], None] | None = None) -> None:
        content: UserData = deliver.user_data
        concat = content.concat
        row: Row = {
            "kind": "inbound",
            "from": deliver.originator.text,
            "to": sim.number,
            "text": content.text,
            "ref": concat.ref if concat else None,
            "total": concat.total if concat else 1,
            "seq": concat.seq if concat else 1,
        }
        self._enqueue(sim, deliver.encode(), row, message_class=content.message_class, taken=taken)

    def _enqueue(
        self,
        sim: SimCard,
        tpdu: bytes,
        row: Row,
        *,
        report: bool = False,
        message_class: int | None = None,
        taken: Callable[[], None] | None = None,
    ) -> None:
        row["tpdu"] = tpdu.hex().upper()
        waiting = _Waiting(self._prefix + row["tpdu"], len(tpdu), report, message_class, row, taken)
        self._queues[sim][report].append(waiting)
        self.pump(sim)

    def pump(self, sim: SimCard) -> None:
        """Hand over what waits for a SIM, as far as its modem takes it. Reports do not wait behind messages."""
        for queue in self._queues[sim]:
            while queue and sim not in self._pending and sim.modem is not None:
                waiting = queue[0]
                outcome, waiting.how = sim.modem.reception.deliver(
                    waiting.pdu, waiting.length, report=waiting.report, message_class=waiting.message_class
                )
                if outcome is Intake.PENDING:
                    self._pending[sim] = queue
                elif outcome is Intake.TAKEN:
                    self._arrived(sim, queue)
                else:
                    break

    def _arrived(self, sim: SimCard, queue: deque[_Waiting]) -> None:
        waiting = queue.popleft()
        modem = sim.modem.name if sim.modem is not None else None
        self._record({**waiting.row, "modem": modem, "how": waiting.how})
        if waiting.taken is not None:
            waiting.taken()

    def acknowledged(self, sim: SimCard) -> None:
        queue = self._pending.pop(sim, None)
        if queue:
            self._arrived(sim, queue)
            self.pump(sim)

    def unacknowledged(self, sim: SimCard) -> None:
        if self._pending.pop(sim, None) is not None:
            self._later(self.redelivery_s, partial(self.pump, sim))


_TO_MODEM = Fate(Verdict.DELIVERED)


def _tail(number: str) -> str:
    digits = number.removeprefix("+")
    return digits[-_TAIL:] if len(digits) > _TAIL else digits
