"""What came in: each PDU is a row before the SIM may forget it, and with its last part it is a message, in one commit.

The same transaction honours STOP, writes the confirmation and the events: a crash leaves nothing half done, and there
is nothing that a restart would have to do again. What a text means is the router's word (`Intake`): pure functions that
are called inside the transaction.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import bindparam, delete, func, null, select, update

from gatewayd.spool import optouts, quarantine, schema
from gatewayd.spool.accept import keep
from gatewayd.spool.counters import MESSAGE, RECEIVED, next_ids
from gatewayd.spool.engine import Row, Statement, storable
from gatewayd.spool.events import INBOUND, GatewayEvent
from gatewayd.spool.intake import DATA, TEXT, UNDECODABLE, CautiousIntake, InboundMessage, Intake, Piece, Ruling
from gatewayd.spool.lanes import LaneBook
from gatewayd.spool.moves import Owner
from gatewayd.spool.reassemble import CONTINUES_WITHIN_MS, Assembly, Joins, KnownPart, Opens, Repeats, is_whole, place
from gatewayd.spool.reassemble import NewPart as PartToPlace
from gatewayd.spool.writer import Tx

REMEMBERED_MS = 7 * 86_400_000  # an SMS centre that misses an acknowledgement repeats within days
HELP_WITHIN_MS = 3_600_000
HELP_AT_MOST = 3  # answers to HELP within that time: two machines must not talk for ever
MAX_ASSEMBLIES = 50  # with one sender and reference, that a part is compared with


REOPENS_NOTHING = frozenset({"opt_out", "help", ""})
"""Intents of texts that let no agent answer one who has opted out: probably STOP, a part of HELP, not judged."""


@dataclass(frozen=True, slots=True)
class NewPart:
    """One received TPDU. `error`: why it could not be decoded (the fields below are then empty). Times in epoch ms."""

    channel: str
    sim_id: int
    raw: str
    listing: str
    storage: str = ""
    storage_index: int | None = None
    error: str | None = None
    originator: str = ""
    originator_ton: int | None = None
    sent_at: int | None = None
    pid: int | None = None
    dcs: int | None = None
    concat_ref: int | None = None
    concat_bits: int | None = None
    concat_total: int | None = None
    concat_seq: int | None = None
    text: str | None = None
    user_data: bytes | None = None


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A message that applications may see. `changed`: what became of the sender's opt-out state, if it was about that.

    `reply_id` is the message that answers it.
    """

    id: int
    message: InboundMessage
    ruling: Ruling
    changed: optouts.Changed | None = None
    reply_id: int | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """The row's id, the id of the earlier row it repeats if it does, and the message that is whole with it."""

    id: int
    duplicate_of: int | None = None
    handed_over: HandedOver | None = None


@dataclass(frozen=True, slots=True)
class Desk:
    """What handing over needs besides the transaction."""

    book: LaneBook
    intake: Intake
    owner: Owner
    handed_over: list[HandedOver] = field(default_factory=list)


_p = schema.inbound_parts.c
_a = schema.inbound_assemblies.c
_COLUMNS = [column.name for column in schema.inbound_parts.columns if column.name not in {"id", "message_id"}]
_GIVEN = [name for name in _COLUMNS if name not in {"received_at", "digest", "duplicate_of", "assembly_id"}]

SAME = Statement(
    select(_p.id, _p.listing, _p.storage, _p.storage_index, _p.duplicate_of)
    .where(_p.sim_id == bindparam("sim_id"), _p.digest == bindparam("digest"), _p.received_at >= bindparam("since"))
    .order_by(_p.id)
)
NEW_PART = Statement(schema.inbound_parts.insert().returning(_p.id), columns=_COLUMNS)
ASSEMBLIES = Statement(
    select(_a.id, _a.opened_at, _a.message_id, _a.continues)
    .where(
        _a.sim_id == bindparam("sim_id"),
        _a.originator == bindparam("originator"),
        _a.concat_ref == bindparam("concat_ref"),
        _a.concat_bits == bindparam("concat_bits"),
        _a.concat_total == bindparam("concat_total"),
    )
    .order_by(_a.id.desc())
    .limit(schema.sqltext(MAX_ASSEMBLIES))
)
_KNOWN = select(_p.id, _p.concat_seq, _p.sent_at, _p.digest).where(_p.duplicate_of.is_(None))
PARTS_OF = Statement(_KNOWN.where(_p.assembly_id == bindparam("assembly_id")).order_by(_p.id))
NEW_ASSEMBLY = Statement(
    schema.inbound_assemblies.insert().returning(_a.id),
    columns=[
        "sim_id", "originator", "concat_ref", "concat_bits", "concat_total", "opened_at", "deadline_at", "continues",
    ],
)  # fmt: skip
ASSEMBLY = Statement(select(_a.concat_total, _a.continues).where(_a.id == bindparam("id")))
ASSEMBLY_DONE = Statement(
    update(schema.inbound_assemblies)
    .where(_a.id == bindparam("b_id"))
    .values(deadline_at=null(), message_id=bindparam("v_message_id"))
)
NO_DEADLINE = Statement(update(schema.inbound_assemblies).where(_a.id == bindparam("b_id")).values(deadline_at=null()))
ASSEMBLY_OF = Statement(select(_a.id, _a.continues).where(_a.message_id == bindparam("message_id")))
_PIECES = select(
    _p.id, _p.concat_seq, _p.dcs, _p.text, _p.user_data, _p.channel, _p.sim_id, _p.originator, _p.originator_ton,
    _p.sent_at, _p.received_at, _p.pid, _p.error,
)  # fmt: skip
PIECES_OF = Statement(
    _PIECES.where(_p.assembly_id == bindparam("assembly_id"), _p.duplicate_of.is_(None)).order_by(_p.id)
)
PIECE = Statement(_PIECES.where(_p.id == bindparam("id")))
NEW_MESSAGE = Statement(
    schema.inbound_messages.insert(),
    columns=[column.name for column in schema.inbound_messages.columns if column.name != "text_dropped_at"],
)
BELONGS = Statement(
    update(schema.inbound_parts).where(_p.id == bindparam("b_id")).values(message_id=bindparam("v_message_id"))
)
BELONG = Statement(
    update(schema.inbound_parts)
    .where(_p.assembly_id == bindparam("b_assembly_id"), _p.duplicate_of.is_(None))
    .values(message_id=bindparam("v_message_id"))
)
NUMBER_OF = Statement(select(schema.sims.c.number).where(schema.sims.c.id == bindparam("id")))
OVERDUE = Statement(
    select(_a.id)
    .where(_a.deadline_at.is_not(None), _a.deadline_at <= bindparam("now"))
    .order_by(_a.deadline_at, _a.id)
    .limit(bindparam("limit"))
)
NEXT_DEADLINE = Statement(select(func.min(_a.deadline_at)).where(_a.deadline_at.is_not(None)))
FORGET = Statement(
    delete(schema.inbound_assemblies).where(_a.opened_at < bindparam("before"), _a.deadline_at.is_(None))
)
FROM_THE_FUTURE = Statement(
    update(schema.inbound_assemblies)
    .where(_a.deadline_at.is_not(None), _a.opened_at > bindparam("b_now"))
    .values(deadline_at=bindparam("b_now") + _a.deadline_at - _a.opened_at, opened_at=bindparam("b_now"))
)


def record(tx: Tx, desk: Desk, part: NewPart, now: int) -> Kept:
    """Keep a received TPDU. The same octets from an earlier reading of the SIM are the same message seen again.

    Two equal PDUs in one reading are two messages: somebody did send the same twice. So of several in a reading as
    many are repetitions as earlier readings had messages. The same place in the same reading is this very call, made
    again because nobody knows whether its commit took place.
    """
    tx.flush()
    digest = hashlib.sha256(part.raw.upper().encode()).digest()
    known = tx.all(SAME, {"sim_id": part.sim_id, "digest": digest, "since": now - REMEMBERED_MS})
    where = (part.listing, part.storage, part.storage_index)
    for part_id, *found, duplicate_of in known:
        if tuple(found) == where:
            return Kept(part_id, duplicate_of)
    repeated = sum(listing == part.listing and of is not None for _, listing, _, _, of in known)
    messages = [part_id for part_id, listing, _, _, of in known if listing != part.listing and of is None]
    duplicate_of = messages[repeated] if repeated < len(messages) else None
    joins: Joins | Repeats | Opens | None = None
    if duplicate_of is None and part.error is None and (part.concat_total or 1) > 1:
        joins = _place(tx, part, digest, now)
        duplicate_of = joins.part_id if isinstance(joins, Repeats) else None
    assembly_id: int | None = None
    if isinstance(joins, Joins):
        assembly_id = joins.assembly_id
    elif isinstance(joins, Opens):
        assembly_id = _open(tx, desk, part, joins.continues, now)
    part_id = _keep(tx, part, digest, duplicate_of, assembly_id, now)
    if duplicate_of is not None:
        return Kept(part_id, duplicate_of)
    if assembly_id is None:
        return Kept(part_id, handed_over=_safely(tx, desk, _piece(tx, part_id), 1, None, None, now))
    if not _complete(tx, assembly_id):
        return Kept(part_id)
    return Kept(part_id, handed_over=_hand_over_assembly(tx, desk, assembly_id, now))


def hand_over_overdue(tx: Tx, desk: Desk, now: int, limit: int) -> int:
    """Hand over what waited too long for its other parts, at most `limit`; how many there were."""
    overdue = tx.all(OVERDUE, {"now": now, "limit": limit})
    for (assembly_id,) in overdue:
        handed = tx.guard(
            partial(_hand_over_assembly, tx, desk, assembly_id, now), partial(_drop_deadline, tx, assembly_id)
        )
        if handed is not None:
            desk.handed_over.append(handed)
    tx.run(FORGET, {"before": now - CONTINUES_WITHIN_MS})
    return len(overdue)


def clock_went_back(tx: Tx, now: int) -> None:
    """Waiting that began by a clock that was ahead counts from `now`."""
    tx.run(FROM_THE_FUTURE, {"b_now": now})


def _drop_deadline(tx: Tx, assembly_id: int, error: Exception) -> None:
    tx.run(NO_DEADLINE, {"b_id": assembly_id})


def _place(tx: Tx, part: NewPart, digest: bytes, now: int) -> Joins | Repeats | Opens:
    assert part.concat_seq is not None
    rows = tx.all(
        ASSEMBLIES,
        {
            "sim_id": part.sim_id,
            "originator": storable(part.originator),
            "concat_ref": part.concat_ref,
            "concat_bits": part.concat_bits,
            "concat_total": part.concat_total,
        },
    )
    assemblies = [
        Assembly(
            assembly_id,
            opened_at,
            message_id,
            tuple(
                KnownPart(part_id, seq, sent_at, bytes(content))
                for part_id, seq, sent_at, content in tx.all(PARTS_OF, {"assembly_id": assembly_id})
            ),
            continues,
        )
        for assembly_id, opened_at, message_id, continues in rows
    ]
    return place(PartToPlace(part.concat_seq, part.sent_at, digest), assemblies, now)


def _open(tx: Tx, desk: Desk, part: NewPart, continues: int | None, now: int) -> int:
    deadline = now + desk.intake.reassembly_timeout_ms
    row = tx.one(
        NEW_ASSEMBLY,
        {
            "sim_id": part.sim_id,
            "originator": storable(part.originator),
            "concat_ref": part.concat_ref,
            "concat_bits": part.concat_bits,
            "concat_total": part.concat_total,
            "opened_at": now,
            "deadline_at": deadline,
            "continues": continues,
        },
    )
    assert row is not None
    tx.notices.at(deadline)
    return int(row[0])


def _keep(tx: Tx, part: NewPart, digest: bytes, duplicate_of: int | None, assembly_id: int | None, now: int) -> int:
    values = {name: getattr(part, name) for name in _GIVEN}
    values = {name: storable(value) if isinstance(value, str) else value for name, value in values.items()}
    row = tx.one(
        NEW_PART,
        {**values, "received_at": now, "digest": digest, "duplicate_of": duplicate_of, "assembly_id": assembly_id},
    )
    assert row is not None
    return int(row[0])


def _complete(tx: Tx, assembly_id: int) -> bool:
    row = tx.one(ASSEMBLY, {"id": assembly_id})
    assert row is not None
    total, continues = row
    seqs = [part[1] for part in tx.all(PARTS_OF, {"assembly_id": assembly_id})]
    return is_whole(seqs, _seqs_before(tx, continues), total)


def _seqs_before(tx: Tx, continues: int | None) -> set[int]:
    """The parts that were in the messages this one continues."""
    before: set[int] = set()
    seen: set[int] = set()
    while continues is not None and continues not in seen:
        seen.add(continues)
        row = tx.one(ASSEMBLY_OF, {"message_id": continues})
        if row is None:
            break
        before |= {part[1] for part in tx.all(PARTS_OF, {"assembly_id": row[0]})}
        continues = row[1]
    return before


def _piece(tx: Tx, part_id: int) -> list[Row]:
    return tx.all(PIECE, {"id": part_id})


def _hand_over_assembly(tx: Tx, desk: Desk, assembly_id: int, now: int) -> HandedOver | None:
    row = tx.one(ASSEMBLY, {"id": assembly_id})
    assert row is not None
    pieces = sorted(tx.all(PIECES_OF, {"assembly_id": assembly_id}), key=lambda row: row[1] or 1)
    if not pieces:
        tx.run(NO_DEADLINE, {"b_id": assembly_id})
        return None
    return _safely(tx, desk, pieces, row[0], row[1], assembly_id, now)


def _safely(
    tx: Tx, desk: Desk, pieces: Sequence[Row], total: int, continues: int | None, assembly_id: int | None, now: int
) -> HandedOver:
    """Hand over; a text that our own rules fail on is handed over without them: its intent is then ""."""
    return tx.guard(
        lambda: _hand_over(tx, desk, pieces, total, continues, assembly_id, now, judged=True),
        lambda error: _hand_over(tx, desk, pieces, total, continues, assembly_id, now, judged=False),
    )


def _hand_over(
    tx: Tx,
    desk: Desk,
    pieces: Sequence[Row],
    total: int,
    continues: int | None,
    assembly_id: int | None,
    now: int,
    *,
    judged: bool,
) -> HandedOver:
    intake = desk.intake if judged else CautiousIntake(desk.intake)
    message = _message(tx, intake, pieces, total, continues)
    first = pieces[0]
    ruling = intake.judge(message)
    if message.number:
        quarantine.cleared(tx, desk.book.faults, message.number, now)  # who writes has a telephone
    (inbound_id,) = next_ids(tx, RECEIVED, 1)
    tx.run(
        NEW_MESSAGE,
        {
            "id": inbound_id,
            "at": now,
            "received_at": message.received_at,
            "channel": message.channel,
            "sim_id": message.sim_id,
            "kind": message.kind,
            "originator": message.originator,
            "number": message.number,
            "recipient": message.recipient,
            "sent_at": message.sent_at,
            "text": None if message.text is None else storable(message.text),
            "data": message.data,
            "pid": first[11],
            "dcs": first[2],
            "parts": message.parts,
            "parts_total": message.parts_total,
            "continues": continues,
            "error": message.error,
            "intent": ruling.intent,
            "tier": ruling.tier,
            "rule": storable(ruling.rule),
        },
    )
    if assembly_id is None:
        tx.run(BELONGS, {"b_id": first[0], "v_message_id": inbound_id})
    else:
        tx.run(BELONG, {"b_assembly_id": assembly_id, "v_message_id": inbound_id})
        tx.run(ASSEMBLY_DONE, {"b_id": assembly_id, "v_message_id": inbound_id})
    if message.kind != UNDECODABLE:
        tx.notices.events.append(GatewayEvent(INBOUND, inbound_id=inbound_id, channel=message.channel))
    changed, reply_id = _act(tx, desk, inbound_id, message, ruling, now)
    return HandedOver(inbound_id, message, ruling, changed, reply_id)


def _message(tx: Tx, intake: Intake, pieces: Sequence[Row], total: int, continues: int | None) -> InboundMessage:
    first = pieces[0]
    channel, sim_id, originator, ton = first[5:9]
    errors = [row[12] for row in pieces if row[12] is not None]
    read = [Piece(row[1] or 1, row[2] or 0, row[3], bytes(row[4] or b"")) for row in pieces]
    text = None if errors else intake.text(read, total)
    kind = UNDECODABLE if errors else DATA if text is None else TEXT
    sim = tx.one(NUMBER_OF, {"id": sim_id})
    recipient = "" if sim is None else sim[0]
    return InboundMessage(
        channel=channel,
        sim_id=sim_id,
        kind=kind,
        originator=originator,
        number=intake.number(originator, ton, recipient) if originator else "",
        recipient=recipient,
        sent_at=min((row[9] for row in pieces if row[9] is not None), default=None),
        received_at=min(row[10] for row in pieces),
        text=text,
        data=b"".join(piece.data for piece in read) if kind == DATA else None,
        parts=len(pieces),
        parts_total=total,
        continues=continues,
        error=errors[0] if errors else None,
    )


def _act(
    tx: Tx, desk: Desk, inbound_id: int, message: InboundMessage, ruling: Ruling, now: int
) -> tuple[optouts.Changed | None, int | None]:
    """Honour what the message asks for; returns what changed, and the answer's id."""
    contact = message.number or message.originator
    if not contact:
        return None, None
    overtaken = optouts.left_since(tx, contact, message.sent_at, now)
    if not ruling.acts:
        if ruling.intent not in REOPENS_NOTHING and not overtaken:
            optouts.wrote(tx, contact)
        return None, None
    said = optouts.Said(
        number=contact,
        number_received=message.originator,
        intent=ruling.intent,
        source=optouts.Source.KEYWORD,
        actor="keyword",
        text=message.text,
        tier=ruling.tier,
        rule=ruling.rule,
        language=ruling.language,
        version=ruling.version,
        channel=message.channel,
        inbound_id=inbound_id,
        sent_at=message.sent_at,
    )
    if ruling.intent == "opt_in" and overtaken:  # it lay on the SIM longer than the STOP that was written after it
        optouts.note(tx, said, now)
        return None, None
    if ruling.intent == "help":
        tired = optouts.answered_since(tx, contact, "help", now - HELP_WITHIN_MS) >= HELP_AT_MOST
        event_id = optouts.note(tx, said, now)
        return None, None if tired else _reply(tx, desk, event_id, ruling, now)
    state = optouts.OptState.OUT if ruling.intent == "opt_out" else optouts.OptState.IN
    changed = optouts.change(tx, desk.book, said, state, desk.owner, now)
    asked = state is optouts.OptState.OUT or changed.prior is optouts.OptState.OUT
    answer = _reply(tx, desk, changed.event_id, ruling, now) if changed.changed and asked else None
    return changed, answer


def _reply(tx: Tx, desk: Desk, event_id: int, ruling: Ruling, now: int) -> int | None:
    """The one answer to an event, of class system: no opt-out binds it. That it fails undoes nothing else."""
    reply = ruling.reply
    if reply is None:
        return None

    def answer() -> int | None:
        (message_id,) = next_ids(tx, MESSAGE, 1)
        keep(tx, desk.book, message_id, reply, None, now)
        optouts.confirmed(tx, event_id, message_id)
        return message_id

    return tx.guard(answer, lambda error: None)
