"""The checks of a submission, and the way into a real spool."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.clock import SystemClock
from gatewayd.errors import RequestError
from gatewayd.model import InDoubtPolicy, MessageClass
from gatewayd.router.submission import Caller, FieldNames, Submission, SubmissionSettings, Submitter
from gatewayd.spool.engine import open_database
from gatewayd.spool.filters import Filter
from gatewayd.spool.message_reader import MessageReader
from gatewayd.spool.reader import Reader
from gatewayd.spool.store import Store
from gatewayd.spool.work import Rules

NOW = 1_800_000_000_000
CALLER = Caller("crm")
GOOD = Submission("098344484", "hello")


class Clock(SystemClock):
    def now_ms(self) -> int:
        return NOW


def submitter(path: Path, **settings: object) -> tuple[Submitter, Store, Reader]:
    database = open_database(f"sqlite:///{path}/spool.db")
    store = Store(database, "test", Clock(), Rules())
    values = {"home_country": "UY", "channels": frozenset({"sim1"}), "max_segments": 3, **settings}
    return Submitter(SubmissionSettings(**values), store, Clock()), store, Reader(database)  # type: ignore[arg-type]


@asynccontextmanager
async def opened(path: Path, **settings: object) -> AsyncIterator[tuple[Submitter, Reader]]:
    made, store, reader = submitter(path, **settings)
    await store.open()
    try:
        yield made, reader
    finally:
        await reader.close()
        await store.close()


@pytest.fixture
def checks(tmp_path: Path) -> Submitter:
    """For checks only: its store is not open."""
    return submitter(tmp_path)[0]


def test_a_submission_becomes_a_message(checks: Submitter) -> None:
    message = checks.check(
        replace(GOOD, priority=9999, not_before=NOW + 1, expires_at=NOW + 2, channel="sim1", campaign="c", agent="a",
                client_ref="r", class_=MessageClass.ALERT, report=False, in_doubt=InDoubtPolicy.HOLD),
        CALLER,
    )  # fmt: skip
    assert (message.to_given, message.to, message.text) == ("098344484", "+59898344484", "hello")
    assert (message.alphabet, message.segments) == ("gsm7", 1)
    assert (message.priority, message.channel, message.campaign, message.agent) == (9999, "sim1", "c", "a")
    assert (message.not_before, message.expires_at, message.client_ref) == (NOW + 1, NOW + 2, "r")
    assert (message.class_, message.report, message.in_doubt) == (MessageClass.ALERT, False, InDoubtPolicy.HOLD)
    assert message.api_key == "crm"


@pytest.mark.parametrize(
    ("text", "alphabet", "segments"),
    [
        ("x" * 160, "gsm7", 1),
        ("x" * 161, "gsm7", 2),
        ("€" * 80, "gsm7", 1),
        ("ж" * 70, "ucs2", 1),
        ("ж" * 71, "ucs2", 2),
    ],
)
def test_the_plan_says_alphabet_and_segments(checks: Submitter, text: str, alphabet: str, segments: int) -> None:
    message = checks.check(replace(GOOD, text=text), CALLER)
    assert (message.alphabet, message.segments) == (alphabet, segments)


@pytest.mark.parametrize(
    ("change", "field", "why"),
    [
        ({"to": ""}, "to", "is empty"),
        ({"to": "0\0"}, "to", "NUL"),
        ({"text": ""}, "text", "is empty"),
        ({"text": "\u2003\r\n"}, "text", "is empty"),
        ({"text": "ab\0"}, "text", "NUL character at position 3"),
        ({"text": "a\udc00"}, "text", "U+DC00"),
        ({"text": "x" * 460}, "text", "takes 4 segments"),
        ({"text": "x" * 100_000}, "text", "takes about 654 segments"),
        ({"class_": MessageClass.SYSTEM}, "class", "by itself"),
        ({"priority": -1}, "priority", "0 to 9999"),
        ({"priority": 10_000}, "priority", "0 to 9999"),
        ({"expires_at": NOW}, "expires_at", "has passed"),
        ({"not_before": NOW + 2, "expires_at": NOW + 2}, "not_before", "before expires_at"),
        ({"channel": "sim9"}, "channel", "there are sim1"),
        ({"in_doubt": InDoubtPolicy.RESEND}, "in_doubt", "in_doubt_resend"),
        ({"campaign": "x" * 129}, "campaign", "129 characters"),
        ({"agent": "a\x7f"}, "agent", "control characters"),
        ({"agent": "\ud800"}, "agent", "U+D800"),
        ({"client_ref": ""}, "client_ref", "is empty"),
    ],
)
def test_what_is_not_acceptable_is_named(checks: Submitter, change: dict[str, object], field: str, why: str) -> None:
    with pytest.raises(RequestError) as error:
        checks.check(replace(GOOD, **change), CALLER)  # type: ignore[arg-type]
    assert error.value.field == field
    assert why in error.value.reason
    assert error.value.status == 422


def test_the_fields_are_called_as_the_caller_calls_them(checks: Submitter) -> None:
    names = FieldNames("destination", "message")
    for submission, field in ((replace(GOOD, to="x"), "destination"), (replace(GOOD, text=""), "message")):
        with pytest.raises(RequestError) as error:
            checks.check(submission, CALLER, names)
        assert error.value.field == field


@pytest.mark.parametrize(
    ("caller", "asked", "policy"),
    [
        (Caller("k"), None, InDoubtPolicy.HOLD),
        (Caller("k"), InDoubtPolicy.FAIL, InDoubtPolicy.FAIL),
        (Caller("k", may_resend=True), None, InDoubtPolicy.HOLD),
        (Caller("k", may_resend=True), InDoubtPolicy.RESEND, InDoubtPolicy.RESEND),
        (Caller("k", may_resend=True, in_doubt=InDoubtPolicy.RESEND), None, InDoubtPolicy.RESEND),
        (Caller("k", may_resend=True, in_doubt=InDoubtPolicy.RESEND), InDoubtPolicy.FAIL, InDoubtPolicy.FAIL),
    ],
)
def test_the_policy_is_the_messages_else_the_callers_else_the_gateways(
    tmp_path: Path, caller: Caller, asked: InDoubtPolicy | None, policy: InDoubtPolicy
) -> None:
    checks = submitter(tmp_path, default_in_doubt=InDoubtPolicy.HOLD)[0]
    assert checks.check(replace(GOOD, in_doubt=asked), caller).in_doubt is policy


async def test_submissions_are_kept_all_or_none(tmp_path: Path) -> None:
    async with opened(tmp_path) as (made, reader):
        with pytest.raises(RequestError):
            await made.submit([GOOD, replace(GOOD, text="")], CALLER)
        lists = MessageReader(reader)
        assert (await lists.page(Filter(), after=None, limit=10)).items == ()
        kept = await made.submit([GOOD, GOOD], CALLER)
        assert [message.id for message in (await lists.page(Filter(), after=None, limit=10)).items] == list(kept.ids)


async def test_a_repetition_with_the_same_key_gets_the_first_answer(tmp_path: Path) -> None:
    async with opened(tmp_path) as (made, reader):

        async def submit(caller: Caller, fingerprint: bytes) -> tuple[tuple[int, ...], str | None]:
            accepted = await made.submit(
                [GOOD], caller, idempotency_key="k", fingerprint=fingerprint, answer=lambda kept: f"answer {kept[0].id}"
            )
            return accepted.ids, accepted.replayed

        assert await submit(CALLER, b"1") == ((1,), None)
        assert await submit(CALLER, b"1") == ((), "answer 1")
        with pytest.raises(RequestError) as error:
            await submit(CALLER, b"2")
        assert (error.value.status, error.value.field) == (409, "Idempotency-Key")
        assert await submit(Caller("other"), b"2") == ((2,), None)
        assert len((await MessageReader(reader).page(Filter(), after=None, limit=10)).items) == 2


@given(st.text(max_size=500), st.integers(1, 5))
def test_any_text_is_planned_within_the_limit_or_refused(text: str, limit: int) -> None:
    checks = Submitter(SubmissionSettings("UY", max_segments=limit), None, Clock())  # type: ignore[arg-type]
    try:
        message = checks.check(replace(GOOD, text=text), CALLER)
    except RequestError:
        return
    assert 1 <= message.segments <= limit
    message.text.encode()
