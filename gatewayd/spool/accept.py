"""Taking messages into the spool, once per Idempotency-Key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import bindparam, select

from gatewayd.model import Admission, Delivery, InDoubtPolicy, MessageClass, MessageState
from gatewayd.model import SegmentState as S
from gatewayd.spool import guards, optouts, schema
from gatewayd.spool.counters import MESSAGE, next_ids
from gatewayd.spool.engine import Statement
from gatewayd.spool.events import ACCEPTED, OF_STATE, GatewayEvent
from gatewayd.spool.lanes import LaneBook
from gatewayd.spool.moves import event
from gatewayd.spool.usage import Exceeded, SegmentLimits, charge
from gatewayd.spool.writer import Tx


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message that has passed every check and is to be kept. Times in UTC epoch milliseconds.

    `source`: whose queue it joins, `dialer:NAME`; "": that of its class. `target`: which channels may take it
    (router/target.py); `route` is the rule that said so. `zone`: time zones of the recipient, where windows of theirs
    may bind it.
    """

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
    source: str = ""
    target: str = "any"
    route: str = ""
    zone: str = ""
    channel: str = ""
    campaign: str = ""
    agent: str = ""
    client_ref: str | None = None
    callback_url: str | None = None
    callback_format: str = ""
    api_key: str = ""


@dataclass(frozen=True, slots=True)
class KeptMessage:
    """A message on disk: TO_PROCESS, or BLOCKED because its number opted out (`reason` says how and when).

    `duplicate_of`: the message that has the same text to the same number, 0 if there is none. Then `warning` says so,
    or the guard against such texts has `refused` it: `id` is 0, `state` NONE, and `reason` says why.
    """

    id: int
    state: MessageState = MessageState.TO_PROCESS
    reason: str = ""
    duplicate_of: int = 0
    warning: str = ""

    @property
    def refused(self) -> bool:
        return self.id == 0


@dataclass(frozen=True, slots=True)
class Idempotency:
    """`answer` makes of what is kept the answer (JSON) that a repetition gets too; `fingerprint` tells a repetition."""

    api_key: str
    key: str
    fingerprint: bytes
    answer: Callable[[Sequence[KeptMessage]], str]


@dataclass(frozen=True, slots=True)
class Accepted:
    """What is kept; or, for a repetition, the answer given the first time (`kept` is then empty).

    `conflict`: the key was used before with another body. `exceeded`: a limit of the API key has no room for it.
    Nothing was kept in either case.
    """

    kept: tuple[KeptMessage, ...] = ()
    replayed: str | None = None
    conflict: bool = False
    exceeded: Exceeded | None = None

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(message.id for message in self.kept if not message.refused)


KNOWN_KEY = Statement(
    select(schema.idempotency.c.fingerprint, schema.idempotency.c.answer).where(
        schema.idempotency.c.api_key == bindparam("api_key"), schema.idempotency.c.key == bindparam("key")
    )
)
NEW_KEY = Statement(schema.idempotency.insert(), columns=["api_key", "key", "fingerprint", "answer", "created_at"])


def accept(
    tx: Tx,
    book: LaneBook,
    messages: Sequence[NewMessage],
    now: int,
    idempotency: Idempotency | None = None,
    limits: SegmentLimits | None = None,
    duplicates: guards.DuplicateGuard | None = None,
) -> Accepted:
    """Keep `messages`, all or none but for those that `duplicates` refuses. A used key with another body, or a limit,
    is an answer and no exception: what a caller does wrong must not roll back the batch of all others.

    `limits` are of the API key that the messages name. What an opt-out blocks is kept as blocked, and not counted.
    """
    if idempotency is not None:
        known = tx.one(KNOWN_KEY, {"api_key": idempotency.api_key, "key": idempotency.key})
        if known is not None:
            if bytes(known[0]) != idempotency.fingerprint:
                return Accepted(conflict=True)
            return Accepted(replayed=known[1])
    hits = optouts.blocking_each(tx, [(message.to, message.class_) for message in messages])
    seen = _seen(tx, messages, hits, duplicates, now)
    refused = [duplicates is not None and duplicates.refuse and each.twin for each in seen]
    if messages and all(refused):  # as with all that is refused: nothing of it is kept, not even the key
        return Accepted(_keep_all(tx, book, messages, hits, seen, refused, now))
    if limits is not None and messages:
        counted = (hit is None and not no for hit, no in zip(hits, refused, strict=True))
        wanted = sum(message.segments for message, counts in zip(messages, counted, strict=True) if counts)
        exceeded = charge(tx, messages[0].api_key, limits, wanted, now)
        if exceeded is not None:
            return Accepted(exceeded=exceeded)
    kept = _keep_all(tx, book, messages, hits, seen, refused, now)
    if idempotency is not None:
        tx.run(
            NEW_KEY,
            {
                "api_key": idempotency.api_key,
                "key": idempotency.key,
                "fingerprint": idempotency.fingerprint,
                "answer": idempotency.answer(kept),
                "created_at": now,
            },
        )
    return Accepted(kept)


def _seen(
    tx: Tx,
    messages: Sequence[NewMessage],
    hits: Sequence[optouts.OptOut | None],
    duplicates: guards.DuplicateGuard | None,
    now: int,
) -> list[guards.Seen]:
    """What the guard against duplicates knows of each message; nothing where it is off."""
    if duplicates is None:
        return [guards.UNSEEN] * len(messages)
    texts = [
        None if hit is not None else guards.Text(message.to, message.text, message.class_)
        for message, hit in zip(messages, hits, strict=True)
    ]
    return guards.look(tx, duplicates, texts, now)


def _keep_all(
    tx: Tx,
    book: LaneBook,
    messages: Sequence[NewMessage],
    hits: Sequence[optouts.OptOut | None],
    seen: Sequence[guards.Seen],
    refused: Sequence[bool],
    now: int,
) -> tuple[KeptMessage, ...]:
    """Write the messages that are not refused, and say of each what became of it."""
    ids = iter(next_ids(tx, MESSAGE, len(messages) - sum(refused)))
    kept: list[KeptMessage] = []
    for message, hit, known, no in zip(messages, hits, seen, refused, strict=True):
        twin = kept[known.index].id if known.index >= 0 else known.message_id
        said = guards.sentence(twin, known.at, now) if twin else ""
        if no:
            kept.append(KeptMessage(0, MessageState.NONE, said, twin))
            continue
        message_id = next(ids)
        made = keep(tx, book, message_id, message, hit, now)
        guards.remember(tx, known, message_id, now)
        if twin:
            event(tx, message_id, now, "duplicate", detail=said)
            made = replace(made, duplicate_of=twin, warning=said)
        kept.append(made)
    return tuple(kept)


def keep(
    tx: Tx, book: LaneBook, message_id: int, message: NewMessage, hit: optouts.OptOut | None, now: int
) -> KeptMessage:
    """Write one message, blocked at once where an opt-out forbids it (`hit`)."""
    source = message.source or f"class:{message.class_.value}"
    lane = book.find(tx, source, message.target, message.channel, 0, 0, message.zone)
    due_at = max(now, message.not_before or 0)
    later = due_at > now
    state = MessageState.TO_PROCESS if hit is None else MessageState.BLOCKED
    reason = "" if hit is None else hit.sentence
    tx.add(
        schema.messages,
        {
            "id": message_id,
            "position": message_id,
            "priority": message.priority,
            "lane_id": lane.id,
            "queue": schema.OUT if hit is not None else schema.LATER if later else schema.DUE,
            "due_at": due_at,
            "admission": Admission.ADMITTED.value,
            "state": state.value,
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
            "route": message.route,
            "zone": message.zone,
            "held": "",
            "wish": "",
            "campaign": message.campaign,
            "agent": message.agent,
            "client_ref": message.client_ref,
            "callback_url": message.callback_url,
            "callback_format": message.callback_format,
            "api_key": message.api_key,
            "reason": reason,
            "accepted_at": now,
            "updated_at": now,
            "finished_at": None if hit is None else now,
            "optout_checked_at": now,
        },
    )
    for seq in range(1, message.segments + 1):
        add_segment(tx, message_id, seq, S.QUEUED if hit is None else S.BLOCKED)
    event(tx, message_id, now, "accepted", to_state=S.QUEUED, actor=message.api_key)
    told = ACCEPTED
    if hit is not None:
        event(tx, message_id, now, "blocked", from_state=S.QUEUED, to_state=S.BLOCKED, detail=reason)
        told = OF_STATE[state]
    tx.notices.events.append(
        GatewayEvent(
            told,
            message_id=message_id,
            data={
                "state": state.value,
                "delivery": Delivery.NONE.value,
                "reason": reason,
                "segments": message.segments,
            },
            class_=message.class_,
            state=state,
            delivery=Delivery.NONE,
            callback_url=message.callback_url,
            callback_format=message.callback_format,
        )
    )
    if hit is not None:
        return KeptMessage(message_id, state, reason)
    if later:
        tx.notices.at(due_at)
    else:
        book.added(lane.id, (-message.priority, message_id, message_id))
        tx.notices.claimable(lane)
    if message.expires_at is not None:
        tx.notices.at(message.expires_at)
    return KeptMessage(message_id)


def add_segment(tx: Tx, message_id: int, seq: int, state: S = S.QUEUED) -> None:
    """Insert one segment."""
    tx.add(
        schema.segments,
        {
            "message_id": message_id,
            "seq": seq,
            "state": state.value,
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
