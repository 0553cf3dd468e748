"""Kannel's delivery reports: values, escapes, and that no value breaks out of the URL."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd.router.kannel_dlr import DlrEvent, DlrRequest, bind, callback_format, check_url, dlr, mask_of
from gatewayd.spool.events import TYPES

AT = 1_800_000_000_000  # 2027-01-15 08:00:00 UTC
ALL = 31
REQUEST = DlrRequest("0059898344484", "12345", "crm", "acct", "bill", "?smpp?a=1&b=x%20y?other?a=2", 2, "UTF-16BE")


def url(template: str, type_: str = "message.sent", mask: int = ALL, **fields: str) -> str | None:
    return dlr(bind(template, REQUEST), mask, DlrEvent(type_, 42, AT, "sim1", **fields))


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("message.sent", 8),
        ("message.delivered", 1),
        ("message.undelivered", 2),
        ("message.failed", 16),
        ("message.blocked", 16),
        ("message.expired", 16),
        ("message.cancelled", 16),
    ],
)
def test_the_value_of_each_event_and_the_masks_that_want_it(type_: str, value: int) -> None:
    assert url("http://h/?d=%d", type_) == f"http://h/?d={value}"
    wanting = {mask for mask in range(64) if url("http://h/", type_, mask) is not None}
    also = 2 if value == 16 else 0  # as in Kannel: who asks for failures hears of both kinds
    assert wanting == {mask for mask in range(64) if mask & (value | also)}


def test_nothing_is_said_where_nobody_knows() -> None:
    told = {type_ for type_ in TYPES if url("http://h/", type_) is not None}
    assert {type_ for type_ in TYPES if type_.startswith("message.")} - told == {
        "message.accepted",
        "message.queued",
        "message.unknown",
        "message.in_doubt",
    }
    assert told <= {type_ for type_ in TYPES if type_.startswith("message.")}
    assert url("http://h/", "something.new") is None


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("%d", "8"),
        ("%p", "0059898344484"),
        ("%q", "%2B59898344484"),
        ("%P", "12345"),
        ("%Q", "12345"),
        ("%t", "2027-01-15+08:00:00"),
        ("%T", "1800000000"),
        ("%i", "sim1"),
        ("%I", "42"),
        ("%F", "207"),
        ("%A", "ACK%2Fid%20a%26b%3A%20one%2Atwo%20three"),
        ("%b", "ACK%2Fid%20a%26b%3A%20one%2Atwo%20three"),
        ("%N", "ACK%2Fid%20a%26b%3A%20one%2Atwo%20three"),
        ("%e", b"ACK/id a&b: one*two three".hex()),
        ("%a", "ACK%2Fid+a%26b%3A+one%2Atwo+three"),
        ("%k", "ACK%2Fid"),
        ("%s-%s-%r", "a%26b%3A-one%2Atwo-three"),
        ("%s%S%s%s", "a%26b%3Aone%2Atwothree"),
        ("%n", "crm"),
        ("%o", "acct"),
        ("%B", "bill"),
        ("%D", "%3Fsmpp%3Fa%3D1%26b%3Dx%2520y%3Fother%3Fa%3D2"),
        ("%#smpp#b#", "x%20y"),
        ("%#other#a#", "2"),
        ("%#none#a#", ""),
        ("%c%m%M", "2-1-1"),
        ("%C", "UTF-16BE"),
        ("%O", "08"),
        ("%u%v%V%f", ""),
        ("%%d", "%d"),
        ("100%", "100%"),
        ("%z%_%20%41", "%z%_%20%41"),
        ("a b\u00e9", "a%20b%C3%A9"),
        ("%R", "http%3A%2F%2Fh%2F%3Fx%3D%25R"),
    ],
)
def test_each_escape(template: str, expected: str) -> None:
    made = url(f"http://h/?x={template}", foreign_id="207", reply="id a&b: one*two three")
    assert made == f"http://h/?x={expected}"


def test_refusals_are_said_as_kannel_says_them() -> None:
    assert url("http://h/?%A", "message.failed", reply="CMS 38: network out of order") == (
        "http://h/?NACK%2FCMS%2038%3A%20network%20out%20of%20order"
    )
    assert url("http://h/?%A", "message.delivered", reply="0x00") == "http://h/?0x00"


def test_the_formats_name() -> None:
    assert (callback_format(31), mask_of("kannel:31")) == ("kannel:31", 31)
    assert [mask_of(other) for other in ("", "kannel:", "kannel:x", "json", "other:31", "kannel:\u0663")] == [None] * 6


@pytest.mark.parametrize("good", ["http://h", "HTTPS://h:8443/a?b=%d#f", "http://u:p@[::1]:80/%I/%d", "http://h/é %z"])
def test_a_url_that_can_be_called(good: str) -> None:
    check_url(good)


@pytest.mark.parametrize(
    "bad",
    [
        "", "h/?%d", "ftp://h/", "javascript:x", "file:///etc/passwd", "http://", "http:///x", "http://%P/", "//h/",
        "http://h%2eevil/", "http://h:x/", "http://h:99999/", "http://[::1/", "http://h/\r\nX: y", "http://h/\t",
        "http://h /", "http://h\u00e9/", "http://h/" + "x" * 2000, "http://h\u2100c/",
    ],
)  # fmt: skip
def test_a_url_that_cannot(bad: str) -> None:
    with pytest.raises(ValueError, match=r"it has|expected|no escapes"):
        check_url(bad)


TEXTS = st.text(st.characters() | st.sampled_from("%&=#?/\\\r\n +\0\ud800"), max_size=20)
REQUESTS = st.builds(
    DlrRequest, to=TEXTS, from_=TEXTS, user=TEXTS, account=TEXTS, binfo=TEXTS, meta_data=TEXTS, charset=TEXTS
)
EVENTS = st.builds(
    DlrEvent,
    type=st.just("message.sent"),
    idm=st.integers(1, 2**62),
    at_ms=st.integers(0, 4_000_000_000_000),
    channel=TEXTS,
    foreign_id=TEXTS,
    reply=TEXTS,
)


def readable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@given(REQUESTS, EVENTS)
def test_a_value_is_what_arrives_and_never_more(request: DlrRequest, event: DlrEvent) -> None:
    codes = "pPnoBDiFA"
    template = "http://h:1/x?" + "&".join(f"{code}=%{code}" for code in codes) + "&end=1"
    made = dlr(bind(template, request), ALL, event)
    assert made is not None
    parts = urlsplit(made)
    assert (parts.netloc, parts.path, parts.fragment) == ("h:1", "/x", "")
    values = (
        request.to, request.from_, request.user, request.account, request.binfo, request.meta_data, event.channel,
        event.foreign_id, "ACK/" + event.reply,
    )  # fmt: skip
    wanted = [*zip(codes, map(readable, values), strict=True), ("end", "1")]
    assert parse_qsl(parts.query, keep_blank_values=True) == wanted


@given(st.text(st.characters() | st.sampled_from("%#pPaAksSrdtTC"), max_size=40), REQUESTS, EVENTS)
def test_whatever_the_template_the_url_is_one_line_of_ascii(rest: str, request: DlrRequest, event: DlrEvent) -> None:
    made = dlr(bind("http://h:1/" + rest, request), ALL, event)
    assert made is not None
    assert made.startswith("http://h:1/")
    assert all("!" <= char <= "~" for char in made)


@given(TEXTS)
def test_what_a_request_fixed_is_no_escape_of_the_report(value: str) -> None:
    """A number "%d" stays "%d" when the report is made of the bound template."""
    bound = bind("http://h/?a=%o", DlrRequest("1", account=value))
    for event in (DlrEvent("message.sent", 1, AT), DlrEvent("message.delivered", 2, AT)):
        made = dlr(bound, ALL, event)
        assert made is not None
        assert parse_qsl(urlsplit(made).query, keep_blank_values=True) == [("a", readable(value))]
