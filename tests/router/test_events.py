"""The document of an event: always the same, always of the described shape."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gatewayd.http.schemas_inbound import check_event
from gatewayd.model import Delivery, MessageClass, MessageState
from gatewayd.router.events import body, document, event_id, gap
from gatewayd.spool.events import CHANNEL, INBOUND, OPTOUT, TYPES
from gatewayd.spool.inbound_reader import InboundView
from gatewayd.spool.outbox_reader import EventRecord, MessageFacts, OptOutFacts

AT = 1_790_000_000_123
MESSAGE_TYPES = [type_ for type_ in TYPES if type_.startswith("message.")]

ids = st.integers(1, 2**62)
moments = st.integers(0, 4_000_000_000_000)
words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
numbers = st.sampled_from(["+59898344484", "7373", "INFO", ""])

facts = st.builds(
    MessageFacts,
    id=ids,
    to=numbers,
    class_=st.sampled_from(MessageClass),
    campaign=words,
    agent=words,
    client_ref=st.none() | words,
    accepted_at=moments,
)
inbounds = st.builds(
    InboundView,
    id=ids, at=moments, received_at=moments, channel=words, sim_id=ids,
    kind=st.sampled_from(["text", "data", "undecodable"]),
    originator=numbers, number=numbers, recipient=numbers, sent_at=st.none() | moments,
    text=st.none() | words, data=st.none() | st.binary(max_size=40), pid=st.none(), dcs=st.none(),
    parts=st.integers(1, 255), parts_total=st.integers(1, 255), continues=st.none() | ids, error=st.none() | words,
    intent=st.sampled_from(["", "opt_out", "opt_in", "help", "none"]), tier=st.sampled_from(["", "A", "B", "C"]),
    rule=words,
)  # fmt: skip
optouts = st.builds(
    OptOutFacts, id=ids, number=numbers, scope=st.just("global"), at=moments, inbound_id=st.none() | ids
)


def record(type_: str, data: dict[str, Any], **about: Any) -> EventRecord:
    return EventRecord(7, AT, type_, about.pop("channel", "m0"), data, **about)


@st.composite
def records(draw: st.DrawFn) -> EventRecord:
    kind = draw(st.sampled_from(["message", "inbound", "optout", "channel"]))
    if kind == "message":
        state, delivery = draw(st.sampled_from(MessageState)), draw(st.sampled_from(Delivery))
        segments = draw(st.integers(1, 255))
        data = {"state": state.value, "delivery": delivery.value, "reason": draw(words), "segments": segments}
        return record(draw(st.sampled_from(MESSAGE_TYPES)), data, message=draw(facts), channel=draw(st.none() | words))
    if kind == "inbound":
        return record(INBOUND, {}, inbound=draw(inbounds))
    if kind == "optout":
        data = {"state": "out", "prior_state": draw(st.sampled_from(["none", "in"])), "blocked": 3, "source": "api"}
        return record(OPTOUT, data, optout=draw(optouts))
    return record(CHANNEL, {"state": "ready", "reason": draw(words)})


@given(records())
def test_a_document_is_the_same_each_time_and_as_described(event: EventRecord) -> None:
    first, again = body(event, "0123abcd"), body(event, "0123abcd")
    assert first == again
    assert b"\n" not in first
    assert b"\r" not in first
    parsed = json.loads(first)
    assert parsed == document(event, "0123abcd")
    check_event(parsed)


def test_the_envelope() -> None:
    found = document(record(CHANNEL, {"state": "down", "reason": "no device"}), "0123abcd")
    assert found == {
        "id": "ev-0123abcd-7",
        "type": "channel.state",
        "at": "2026-09-21T14:13:20.123Z",
        "data": {"channel": "m0", "state": "down", "reason": "no device"},
    }
    assert event_id("0123abcd", 7) == found["id"]


def test_a_sender_that_is_no_number_is_told_as_received_and_data_as_base64() -> None:
    view = InboundView(
        1, AT, AT, "m0", 1, "data", "INFO", "", "", None, None, b"\x00\xff", 0, 4, 1, 2, None, None, "", "", ""
    )
    data = document(record(INBOUND, {}, inbound=view), "s")["data"]
    assert (data["from"], data["from_given"], data["to"], data["text"]) == ("INFO", "INFO", None, None)
    assert base64.b64decode(data["data"]) == b"\x00\xff"
    assert data["partial"] is True


def test_what_is_gone_leaves_what_the_event_knew() -> None:
    found = document(record("message.failed", {"state": 5, "delivery": "none", "reason": "x"}), "s")
    assert found["data"] == {"state": 5, "delivery": "none", "reason": "x"}


def test_a_gap_is_described_too() -> None:
    check_event(gap(3, 9, "0123abcd", AT, "they are not kept any more"))
