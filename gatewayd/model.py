"""The words every room shares: what a message, a segment and a channel are. See docs/glossary.md.

Plain frozen data; nothing here does I/O. Times are UTC epoch milliseconds (`_ms`, `_at`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum


class SegmentState(StrEnum):
    """Where one segment is in its life. The moves between them are in `spool/lifecycle.py`, nowhere else."""

    HELD = "HELD"  # kept back by an operator or a guard
    QUEUED = "QUEUED"  # waits for a channel
    SUBMITTING = "SUBMITTING"  # marked on disk, in a channel's hands
    SUBMITTED = "SUBMITTED"  # the network took it
    IN_DOUBT = "IN_DOUBT"  # handed over, and nobody knows
    DELIVERED = "DELIVERED"  # a status report says so
    UNDELIVERED = "UNDELIVERED"  # a status report says so
    NO_REPORT = "NO_REPORT"  # none came in time
    BLOCKED = "BLOCKED"  # a list forbids it
    EXPIRED = "EXPIRED"  # its time passed before it was sent
    CANCELLED = "CANCELLED"  # an operator or the application withdrew it
    FAILED = "FAILED"  # refused for good, not sent
    ABANDONED = "ABANDONED"  # in doubt for too long; never sent again by itself


class MessageState(IntEnum):
    """The spool states of the Integra document (0, 1, 3) and ours in its gaps: S4-41 to S4-43."""

    NONE = 0
    TO_PROCESS = 1
    PROCESSED = 2
    BLOCKED = 3
    OTHER = 4
    FAILED = 5
    EXPIRED = 6
    CANCELLED = 7
    IN_DOUBT = 8


class Delivery(StrEnum):
    """What status reports say of a whole message."""

    NONE = "none"  # no report was asked for, or nothing was sent yet
    PENDING = "pending"
    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    UNKNOWN = "unknown"


class Admission(StrEnum):
    """Whether a message came as far as the queue."""

    NONE = "none"  # not picked up yet
    ADMITTED = "admitted"
    BAD_NUMBER = "bad_number"


class MessageClass(StrEnum):
    """What a message is for; decides which lists, windows and lanes bind it."""

    CAMPAIGN = "campaign"
    APPLICATION = "application"
    ALERT = "alert"
    AGENT = "agent"
    SYSTEM = "system"


class InDoubtPolicy(StrEnum):
    """What becomes of a segment of which nobody knows whether it was sent."""

    FAIL = "fail"  # after a while ABANDONED; never sent again by itself
    HOLD = "hold"  # waits for an operator
    RESEND = "resend"  # goes out again; only ever chosen explicitly


class Outcome(Enum):
    """What is known of a segment after a try at it."""

    SENT = "sent"
    NOT_SENT = "not_sent"
    IN_DOUBT = "in_doubt"


class FailureClass(StrEnum):
    """Why a segment was not sent. The driver of a device says which (`modems/at/results.py`), `spool/retry.py` what is
    done about each.
    """

    NUMBER = "number"  # nobody has the number, or nobody may write to it
    UNREACHABLE = "unreachable"  # the recipient's phone takes nothing now
    MESSAGE = "message"  # it is malformed, or asks for what there is not
    REJECTED = "rejected"  # this network wants it not, and does not say what is wrong
    SIM = "sim"  # the SIM may not send: barred, no credit, locked, not there
    SMSC = "smsc"  # no SMS centre, or one that does not serve this SIM
    NETWORK = "network"  # no service, out of order, silent
    CONGESTION = "congestion"  # too much at once
    DEVICE = "device"  # the modem, or its memory
    SETUP = "setup"  # a mode or parameter the modem does not have or lost
    UNKNOWN = "unknown"  # no code, or one that says nothing


class ReportVerdict(StrEnum):
    """What TP-ST says. Source: 3GPP TS 23.040 §9.2.3.15."""

    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    TRYING = "trying"  # the SMS centre still tries: changes nothing


class ChannelState(StrEnum):
    """What a channel is doing. Only READY may send."""

    DOWN = "down"  # no device, or it does not answer; reconnecting with back-off
    STARTING = "starting"  # bring-up under way
    UNREGISTERED = "unregistered"  # works, but no network
    READY = "ready"
    PARKED = "parked"  # needs a person (PIN, changed SIM); never retried by itself
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Message:
    """One text to one number, as much of it as a channel and a planner need.

    `to` is an E.164 msisdn ("+59898344484") or a short code ("7373"). `validity_s` is the validity to ask of the
    network (None: the SMS centre's default). `concat_ref` (0..65535) joins the parts of a long text and stays the same
    over every retry.
    """

    id: int
    to: str
    text: str
    class_: MessageClass = MessageClass.APPLICATION
    report: bool = True
    concat_ref: int = 0
    validity_s: int | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """One unit that a channel submits: a TPDU, or for a device that splits by itself the whole message.

    `seq` counts from 1 to `total`. `tpdu` is without SMSC address; empty for a device that takes text. `parts` is how
    many short messages the network will charge for it.
    """

    message: Message
    seq: int
    total: int
    tpdu: bytes = b""
    parts: int = 1


@dataclass(frozen=True, slots=True)
class Receipt:
    """The network took a segment. `ref` is the TP-MR (0..255) or the device's id; None if the modem did not say.

    `started_ms` is the UTC epoch of the first byte of AT+CMGS (or of the POST), `finished_ms` that of the final result.
    """

    ref: int | None
    started_ms: int
    finished_ms: int


@dataclass(frozen=True, slots=True)
class SimIdentity:
    """What a SIM says of itself. At least one of the two is not empty where a SIM is in."""

    iccid: str = ""
    imsi: str = ""


@dataclass(frozen=True, slots=True)
class ChannelStatus:
    """A channel at one moment. `rssi_dbm` None: unknown. `reason` says in words why it is not READY."""

    name: str
    state: ChannelState
    since_ms: int
    reason: str = ""
    sim: SimIdentity = field(default_factory=SimIdentity)
    number: str = ""
    operator: str = ""
    rssi_dbm: int | None = None
    imei: str = ""
    model: str = ""
    port: str = ""


@dataclass(frozen=True, slots=True)
class StoredPdu:
    """A TPDU as the modem handed it over, with what is needed to recognise it again.

    `raw` is the whole PDU as hex text, SMSC address included, exactly as received: also when it decodes to nothing.
    `length` is the TPDU length in octets the modem announced (None: not announced). `listing` identifies the reading it
    came in: two equal PDUs in one listing are two messages, in different listings one message seen twice. `storage` and
    `index` say where it lies; `index` None: delivered directly (+CMT, +CDS).
    """

    raw: str
    length: int | None
    listing: str
    storage: str = ""
    index: int | None = None
