"""Taking messages into the spool, once per Idempotency-Key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select, update

from gatewayd.model import Admission, Delivery, InDoubtPolicy, MessageClass, MessageState
from gatewayd.model import SegmentState as S
from gatewayd.spool import schema
from gatewayd.spool.engine import Statement
from gatewayd.spool.lanes import LaneBook
from gatewayd.spool.moves import event
from gatewayd.spool.writer import Tx


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that has passed every check and is to be kept. Times in UTC epoch milliseconds."""

    to_given: str
    to: str
    text: str
    alphabet: str
    segments: int
    class_: MessageClass = MessageClass.APPLICATION
    priority: int = 0
    report: bool = True
    in_doubt: InDoubtPolicy = InDoubtPolicy.FAIL
    not_before: int | None = None
    expires_at: int | None = None
    target: str = "any"
    channel: str = ""
    campaign: str = ""
    agent: str = ""
    client_ref: str | None = None
    callback_url: str | None = None
    api_key: str = ""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """`answer` makes of the new ids the answer (JSON) that a repetition gets too; `fingerprint` tells a repetition."""

    api_key: str
    key: str
    fingerprint: bytes
    answer: Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Accepted:
    """The ids given; or, for a repetition, the answer given the first time (`ids` is then empty).

    `conflict`: the key was used before with another body, and nothing was kept.
    """

    ids: tuple[int, ...]
    replayed: str | None = None
    conflict: bool = False


NEXT_IDS = Statement(
    update(schema.counters)
    .where(schema.counters.c.name == bindparam("b_name"))
    .values(value=schema.counters.c.value + bindparam("b_count"))
    .returning(schema.counters.c.value)
)
KNOWN_KEY = Statement(
    select(schema.idempotency.c.fingerprint, schema.idempotency.c.answer).where(
        schema.idempotency.c.api_key == bindparam("api_key"), schema.idempotency.c.key == bindparam("key")
    )
)
NEW_KEY = Statement(schema.idempotency.insert(), columns=["api_key", "key", "fingerprint", "answer", "created_at"])


def accept(
    tx: Tx, book: LaneBook, messages: Sequence[NewMessage], now: int, idempotency: Idempotency | None = None
) -> Accepted:
    """Keep `messages`, all or none. A used key with another body is an answer and no exception: what a caller does
    wrong must not roll back the batch of all others.
    """
    if idempotency is not None:
        known = tx.one(KNOWN_KEY, {"api_key": idempotency.api_key, "key": idempotency.key})
        if known is not None:
            if bytes(known[0]) != idempotency.fingerprint:
                return Accepted((), conflict=True)
            return Accepted((), replayed=known[1])
    row = tx.one(NEXT_IDS, {"b_name": "message", "b_count": len(messages)})
    assert row is not None
    first = row[0] - len(messages) + 1
    ids = tuple(range(first, first + len(messages)))
    for message_id, message in zip(ids, messages, strict=True):
        _keep(tx, book, message_id, message, now)
    if idempotency is not None:
        tx.run(
            NEW_KEY,
            {
                "api_key": idempotency.api_key,
                "key": idempotency.key,
                "fingerprint": idempotency.fingerprint,
                "answer": idempotency.answer(ids),
                "created_at": now,
            },
        )
    return Accepted(ids)


def _keep(tx: Tx, book: LaneBook, message_id: int, message: NewMessage, now: int) -> None:
    source = f"class:{message.class_.value}"
    lane = book.find(tx, source, message.target, message.channel, 0, 0)
    due_at = max(now, message.not_before or 0)
    later = due_at > now
    tx.add(
        schema.messages,
        {
            "id": message_id,
            "position": message_id,
            "priority": message.priority,
            "lane_id": lane.id,
            "queue": schema.LATER if later else schema.DUE,
            "due_at": due_at,
            "admission": Admission.ADMITTED.value,
            "state": MessageState.TO_PROCESS.value,
            "delivery": Delivery.NONE.value,
            "class": message.class_.value,
            "to_given": message.to_given,
            "to_number": message.to,
            "text": message.text,
            "alphabet": message.alphabet,
            "plan": "tpdu",
            "segments": message.segments,
            "concat_ref": concat_ref(message_id),
            "report": int(message.report),
            "in_doubt": message.in_doubt.value,
            "not_before": message.not_before,
            "expires_at": message.expires_at,
            "avoid_sim_id": 0,
            "touched": 0,
            "busy": 0,
            "source": source,
            "target": message.target,
            "pin_channel": message.channel,
            "campaign": message.campaign,
            "agent": message.agent,
            "client_ref": message.client_ref,
            "callback_url": message.callback_url,
            "api_key": message.api_key,
            "reason": "",
            "accepted_at": now,
            "updated_at": now,
        },
    )
    for seq in range(1, message.segments + 1):
        add_segment(tx, message_id, seq)
    event(tx, message_id, now, "accepted", to_state=S.QUEUED, actor=message.api_key)
    if later:
        tx.notices.at(due_at)
    else:
        book.added(lane.id, (-message.priority, message_id, message_id))
        tx.notices.claimable(lane)
    if message.expires_at is not None:
        tx.notices.at(message.expires_at)


def add_segment(tx: Tx, message_id: int, seq: int) -> None:
    """Insert one queued segment."""
    tx.add(
        schema.segments,
        {
            "message_id": message_id,
            "seq": seq,
            "state": S.QUEUED.value,
            "parts": 1,
            "parts_ok": 0,
            "tries": 0,
            "attempt": 0,
            "code": "",
        },
    )


def concat_ref(message_id: int) -> int:
    """A concatenation reference (0..65535) for a message: scattered, so that long texts to one number hardly repeat it.

    Plain `id mod 256` would repeat for every list whose length divides by 256. Knuth's multiplicative hash.
    """
    return (message_id * 2654435761 >> 8) & 0xFFFF
