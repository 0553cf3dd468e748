"""The guard against the same text to the same number within a time, in the transaction that accepts. Issue 4 item 8.

Only classes application and campaign are looked at: an alert, or what a person writes, may well be said twice. The time
counts from the acceptance of the message that was kept last; one that is refused does not prolong it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import bindparam, select, update

from gatewayd.model import MessageClass
from gatewayd.spool import schema
from gatewayd.spool.counters import MESSAGE, next_ids
from gatewayd.spool.engine import Statement
from gatewayd.spool.writer import Tx

BOUND = frozenset({MessageClass.APPLICATION, MessageClass.CAMPAIGN})
DIGEST_OCTETS = 16


@dataclass(frozen=True, slots=True)
class DuplicateGuard:
    """How long a text is remembered, and whether its repetition is refused (else it is only pointed out)."""

    within_ms: int
    refuse: bool = False


@dataclass(frozen=True, slots=True)
class Text:
    """A text to a number, as far as it is comparable with others."""

    number: str
    text: str
    class_: MessageClass


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a text. `digest` b"": it is not looked at.

    A twin was kept within the time: the message `message_id`, or the one at `index` of the same submission (-1: not
    there). `at`: when it was accepted, UTC epoch ms. `known`: a row for the digest exists, however old.
    """

    digest: bytes = b""
    message_id: int = 0
    index: int = -1
    at: int = 0
    known: bool = False

    @property
    def twin(self) -> bool:
        return self.message_id > 0 or self.index >= 0


UNSEEN = Seen()

KNOWN = Statement(
    select(schema.recent_texts.c.message_id, schema.recent_texts.c.at).where(
        schema.recent_texts.c.digest == bindparam("digest")
    )
)
RENEW = Statement(
    update(schema.recent_texts)
    .where(schema.recent_texts.c.digest == bindparam("b_digest"))
    .values(message_id=bindparam("v_message_id"), at=bindparam("v_at"))
)
REMEMBER = Statement(schema.recent_texts.insert(), columns=["digest", "message_id", "at"])


def digest(number: str, text: str) -> bytes:
    """What a text to a number is remembered by: neither can be read from it without guessing both."""
    return hashlib.sha256(f"{number}\0{text}".encode()).digest()[:DIGEST_OCTETS]


def look(tx: Tx, guard: DuplicateGuard, texts: Sequence[Text | None], now: int) -> list[Seen]:
    """What is known of each text of one submission (None: it is blocked anyway, and not looked at)."""
    # Two instances on one PostgreSQL must not both find nothing: every submission takes this lock.
    next_ids(tx, MESSAGE, 0)
    found: list[Seen] = []
    here: dict[bytes, int] = {}
    for index, text in enumerate(texts):
        if text is None or text.class_ not in BOUND:
            found.append(UNSEEN)
            continue
        key = digest(text.number, text.text)
        if key in here:
            found.append(Seen(key, index=here[key], at=now, known=True))
            if not guard.refuse:
                here[key] = index
            continue
        here[key] = index
        row = tx.one(KNOWN, {"digest": key})
        if row is None:
            found.append(Seen(key))
        elif abs(now - row[1]) < guard.within_ms:  # a clock that is set back makes no text new again
            found.append(Seen(key, row[0], at=row[1], known=True))
            if guard.refuse:
                del here[key]  # the next one is that message's twin too
        else:
            found.append(Seen(key, known=True))
    return found


def remember(tx: Tx, seen: Seen, message_id: int, now: int) -> None:
    """A message with this text was kept."""
    if seen.digest and not (
        seen.known and tx.run(RENEW, {"b_digest": seen.digest, "v_message_id": message_id, "v_at": now})
    ):
        tx.run(REMEMBER, {"digest": seen.digest, "message_id": message_id, "at": now})


def sentence(message_id: int, at: int, now: int) -> str:
    """What is said of a repetition of the message `message_id`, which was accepted at `at`."""
    ago = max(0, now - at) // 1000
    when = "in the same request" if at == now else f"{ago} s before" if ago < 180 else f"{ago // 60} min before"
    return f"the same text to the same number as message {message_id}, accepted {when}"
