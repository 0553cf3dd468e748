"""What an inbound message means to the gateway: number, text, verdict, answer. Pure, so asked directly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatewayd.model import MessageClass
from gatewayd.modems.pdu import Alphabet, TypeOfNumber, count, split
from gatewayd.router.intake import GAP, REPLY_WITHIN_MS, Intake, IntakeSettings, country_of
from gatewayd.router.optout import load_packs
from gatewayd.spool.intake import InboundMessage, Piece

PACKS = load_packs()
CONTACT = "+59898344484"
AT = 1_790_000_000_000
GIVEN = {"packs": PACKS, "home_country": "UY", "name": "ACME", "contact": "+598 2900 0000"}


def intake(**fields: object) -> Intake:
    return Intake(IntakeSettings(**{**GIVEN, **fields}))  # type: ignore[arg-type]


def handed(text: str | None, **fields: object) -> InboundMessage:
    kind = "data" if text is None else "text"
    message = InboundMessage("m0", 1, kind, CONTACT, CONTACT, "", AT - 5000, AT, text, None, 1, 1)
    return replace(message, **fields)  # type: ignore[arg-type]


def pieces(text: str) -> list[Piece]:
    parts = split(text)
    return [Piece(seq, part.dcs, part.text, part.data) for seq, part in enumerate(parts, start=1)]


@pytest.mark.parametrize(
    ("originator", "ton", "expected"),
    [
        (CONTACT, TypeOfNumber.INTERNATIONAL, CONTACT),
        ("098344484", TypeOfNumber.NATIONAL, CONTACT),
        ("098 344 484", TypeOfNumber.UNKNOWN, CONTACT),
        ("0059898344484", TypeOfNumber.UNKNOWN, CONTACT),
        ("2020", TypeOfNumber.UNKNOWN, "2020"),
        ("BANK", TypeOfNumber.ALPHANUMERIC, ""),
        ("59898344484", TypeOfNumber.ALPHANUMERIC, ""),  # a name that looks like a number is none
        ("", None, ""),
        ("*#06#", None, ""),
        ("9" * 200, None, ""),
        ("\0\ud800", None, ""),
    ],
)
def test_the_number_of_a_sender(originator: str, ton: int | None, expected: str) -> None:
    assert intake().number(originator, ton, "") == expected


def test_without_a_home_country_the_sims_own_number_says_which_it_is() -> None:
    """Decision 9: else a STOP that comes in national form would not be of the number that was written to."""
    nowhere = intake(home_country="")
    assert nowhere.number("098344484", TypeOfNumber.NATIONAL, "+59899000001") == CONTACT
    assert nowhere.number("098344484", TypeOfNumber.NATIONAL, "") == ""


@given(st.text(max_size=80), st.one_of(st.none(), st.integers(0, 7)))
@settings(deadline=None, max_examples=200)
def test_any_sender_has_a_number_or_none(originator: str, ton: int | None) -> None:
    number = intake().number(originator, ton, "")
    assert number == "" or number.lstrip("+").isdigit()


@given(st.one_of(st.text(alphabet="abc€{[ñ", max_size=500), st.text(alphabet="я🙂中a", max_size=200)), st.data())
@settings(deadline=None, max_examples=100)
def test_a_text_is_what_was_written_and_shows_where_parts_lack(text: str, data: st.DataObject) -> None:
    parts = pieces(text)
    assert intake().text(parts, len(parts)) == text
    some = data.draw(st.lists(st.sampled_from(parts), min_size=1, unique_by=lambda piece: piece.seq))
    joined = intake().text(some, len(parts))
    assert joined is not None
    assert (GAP in joined) == (len(some) < len(parts))
    for piece in some:
        assert (piece.text or "") in joined


def test_a_pair_that_two_parts_share_is_a_character_in_a_partial_text_too() -> None:
    smile = "🙂".encode("utf-16-be")
    halves = [Piece(2, 8, "a\ufffd", b"\0a" + smile[:2]), Piece(3, 8, "\ufffdb", smile[2:] + b"\0b")]
    assert intake().text(halves, 4) == f"{GAP}a🙂b{GAP}"


def test_data_in_any_part_makes_no_text() -> None:
    assert intake().text([Piece(1, 0, "text", b"\x41"), Piece(2, 4, None, b"\xff")], 2) is None


@pytest.mark.parametrize(
    ("text", "intent", "tier", "acts"),
    [
        ("STOP", "opt_out", "A", True),
        ("stop texting me", "opt_out", "B", False),
        ("START", "opt_in", "C", True),
        ("HELP", "help", "C", True),
        ("hello", "none", "C", False),
        ("STOP 12345", "none", "C", False),
    ],
)
def test_what_is_acted_on(text: str, intent: str, tier: str, acts: bool) -> None:
    ruling = intake().judge(handed(text))
    assert (ruling.intent, ruling.tier, ruling.acts) == (intent, tier, acts)
    assert (ruling.reply is not None) == acts
    for partial in (handed(text, parts=1, parts_total=2), handed(text, continues=7)):
        ruling = intake().judge(partial)
        assert (ruling.intent, ruling.acts, ruling.reply) == (intent, False, None)
        assert ruling.tier != "A", "what lacks may say otherwise"


def test_no_text_is_judged_not_at_all() -> None:
    assert intake().judge(handed(None)).intent == ""
    assert intake().judge(handed(None, kind="undecodable", error="no hex")).intent == ""


@pytest.mark.parametrize("language", [pack.language for pack in PACKS])
@pytest.mark.parametrize("name", ["", "ACME", "Ñandu €"])
def test_an_answer_is_one_segment_in_the_language_of_the_question(language: str, name: str) -> None:
    pack = next(pack for pack in PACKS if pack.language == language)
    asked = {"opt_out": next(iter(pack.keywords)), "opt_in": " ".join(next(iter(pack.opt_in))),
             "help": " ".join(next(iter(pack.help)))}  # fmt: skip
    for intent, text in asked.items():
        reply = intake(packs=(pack,), name=name, contact="").judge(handed(text)).reply
        if intent == "help" and not name:
            assert reply is None, "HELP says who we are, or nothing"
            continue
        assert reply is not None
        assert reply.text == (f"{name}: " if name else "") + pack.reply(intent)
        assert (reply.alphabet, reply.segments) == (Alphabet.GSM7.value, 1)
        assert reply.segments == count(reply.text)[1]


def test_an_answer_goes_back_the_way_it_came_first_of_all_and_not_late() -> None:
    reply = intake().judge(handed("STOP", channel="m7")).reply
    assert reply is not None
    assert (reply.to, reply.channel, reply.class_) == (CONTACT, "m7", MessageClass.SYSTEM)
    assert reply.expires_at == AT + REPLY_WITHIN_MS
    assert reply.priority == 9999
    assert reply.report


@pytest.mark.parametrize(
    ("fields", "number", "answered"),
    [
        ({}, CONTACT, True),
        ({"confirm": False}, CONTACT, False),
        ({"no_confirm_countries": frozenset({"UY"})}, CONTACT, False),
        ({"no_confirm_countries": frozenset({"AR"})}, CONTACT, True),
        ({"no_confirm_countries": frozenset({"CA"})}, "+16135550123", False),
        ({"no_confirm_countries": frozenset({"US"})}, "+16135550123", True),
        ({}, "2020", False),
        ({}, "", False),
    ],
)
def test_who_is_answered(fields: dict[str, object], number: str, answered: bool) -> None:
    for text in ("STOP", "START"):
        ruling = intake(**fields).judge(handed(text, number=number))
        assert ruling.acts, "the opt-out counts whether it is confirmed or not"
        assert (ruling.reply is not None) == answered
    # HELP has to be answered where STOP need not be confirmed.
    assert (intake(**fields).judge(handed("HELP", number=number)).reply is not None) == number.startswith("+")


@pytest.mark.parametrize(
    ("number", "country"),
    [(CONTACT, "UY"), ("+14165550123", "CA"), ("+12125550123", "US"), ("2020", ""), ("", ""), ("+999123", "")],
)
def test_the_country_of_a_number(number: str, country: str) -> None:
    assert country_of(number) == country


@given(st.lists(st.sampled_from(["STOP", "stop please", "hola", "BAJA", "\0", "🙂" * 100, "s t o p"]), max_size=3))
@settings(deadline=None, max_examples=50)
def test_judging_is_the_same_each_time(words: Sequence[str]) -> None:
    message = handed(" ".join(words))
    assert intake().judge(message) == intake().judge(message)
