"""The log: one entry for each event whatever is in it, nobody's number or text, and never a reason to stop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import os
import re
import select
import socket
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatewayd import msglog
from gatewayd.config.models import LogFormat
from gatewayd.logs import JournalOutput, Output, StreamOutput, goes_to_journal, output_for
from gatewayd.logstyles import JournalStyle, JsonStyle, PrefixStyle, TextStyle
from gatewayd.model import MessageClass, MessageState
from gatewayd.modems.simulator.process import simulator_process
from tests.daemon import configuration, daemon, until

ROOT = Path(__file__).parents[1]
NUMBER = "+59898344484"
FORGED = "no\n2026-07-12 10:00:00,000 INFO     gatewayd.message: sent idm=1\r\x1b[2K\u2028<2>gatewayd: gone\x00\u202e"


def _received(number: str, text: str) -> None:
    msglog.received(1, "m0", number, None, None)
    msglog.received(2, "m0", number, 1, None)
    msglog.received(3, "m0", number, None, f"{text} {number}")


def _recovered(endpoint: str) -> None:
    msglog.webhook_failed(endpoint, "ev1", 500, 1, None)
    msglog.webhook_recovered(endpoint)


EVENTS: dict[str, Callable[[str, str], None]] = {
    "accepted": lambda number, text: msglog.accepted(1, number, 2, text),
    "submitted": lambda number, text: msglog.submitted(1, 1, 2, "m0", 7, 231),
    "duplicate": lambda number, text: msglog.duplicate(2, 1, number, text),
    "channel_stopped": lambda number, text: msglog.channel_stopped("m0", f"stopped: 5 times CMS 38 {number} {text}"),
    "quota_spent": lambda number, text: msglog.quota_spent("m0", "day", 5, "2026-12-01"),
    "not_sent": lambda number, text: msglog.not_sent(1, 1, 2, "m0", f"CMS 500 {number}", f"{text} {number}"),
    "withdrawn": lambda number, text: msglog.withdrawn(1, 1, "m0", f"{text} {number}"),
    "in_doubt": lambda number, text: msglog.in_doubt(1, 1, "m0", f"{text} {number}"),
    "late_result": lambda number, text: msglog.late_result(None, "m0", 9),
    "reported": lambda number, text: msglog.reported(1, 1, "m0", "delivered", 0),
    "state_changed": lambda number, text: msglog.state_changed(
        "message.failed", 1, MessageClass.ALERT, MessageState.FAILED, "none", f"{text} {number}"
    ),
    "received": lambda number, text: _received(number, text),
    "inbound": lambda number, text: msglog.inbound(1, "m0", number, 2, True, "text", "stop"),
    "opted": lambda number, text: msglog.opted(number, "out", "keyword", 3, 77),
    "webhook_failed": lambda number, text: msglog.webhook_failed(
        f"https://user:secret@example.net/hook?to={number}", "ev1", f"{text} {number}", 1, 2.5
    ),
    "webhook_delivered": lambda number, text: msglog.webhook_delivered(f"http://example.net/{number}", "ev1", 2),
    "webhook_recovered": lambda number, text: _recovered(f"crm{number}"),
    "webhook_dead": lambda number, text: msglog.webhook_dead("crm", "ev1", 9, f"{text} {number}"),
    "config_reloaded": lambda number, text: msglog.config_reloaded([f"sims[0].number is {number}", text]),
    "config_refused": lambda number, text: msglog.config_refused([f"{number} {text}"] * 30),
    "access": lambda number, text: msglog.access("GET", "/api/v1/messages/{idm}", 200, 3.21, text, "127.0.0.1", 120),
}
"""Each function of msglog that logs, called with a number and a text wherever one can stand."""
NO_EVENTS = {"configure", "masked", "masked_line", "masked_endpoint", "scrubbed", "one_line"}


@pytest.fixture(autouse=True)
def _as_new() -> Iterator[None]:
    yield
    msglog.configure(mask=True)
    _forget()


def _forget() -> None:
    msglog._refusals.clear()
    msglog._endpoints.clear()


class Kept(logging.Handler):
    """Keeps the records themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextlib.contextmanager
def logging_to(handler: logging.Handler, level: int = logging.DEBUG) -> Iterator[logging.Logger]:
    """Everything of ours to `handler` alone."""
    logger = logging.getLogger("gatewayd")
    before = (logger.level, logger.propagate)
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]
        handler.close()


def written(wanted: LogFormat, work: Callable[[], object], path: Path) -> list[str]:
    """What `work` logs, as it stands in a file, line by line."""
    with path.open("wb") as file, logging_to(output_for(wanted, {}, fd=file.fileno(), journal=str(path / "none"))):
        work()
    return path.read_text(encoding="utf-8").splitlines()  # at everything Python takes for the end of a line


def fields(datagram: bytes) -> dict[str, str]:
    """A datagram of the journal's native protocol, read as its document says."""
    found = {}
    while datagram:
        line, _, datagram = datagram.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            length = int.from_bytes(datagram[:8], "little")
            value, end, datagram = datagram[8 : 8 + length], datagram[8 + length : 9 + length], datagram[9 + length :]
            assert end == b"\n"
        assert re.fullmatch(rb"[A-Z][A-Z0-9_]{0,63}", name), name
        assert name.decode() not in found
        found[name.decode()] = value.decode()
    return found


@contextlib.contextmanager
def journald(path: Path) -> Iterator[socket.socket]:
    """A socket where the journal would have its own."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(path))
        listening.settimeout(30)
        yield listening
    path.unlink()


# -- the formats --


def test_text_has_one_line_for_each_event(tmp_path: Path) -> None:
    def work() -> None:
        msglog.submitted(1, 1, 2, "m0", 7, 231)
        msglog.not_sent(1, 2, 2, "m0", "CMS 500", "unknown error")

    sent, not_sent = written(LogFormat.TEXT, work, tmp_path / "log")
    time = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} "
    line = r"INFO     gatewayd\.message: sent idm=1 segment=1/2 channel=m0 tp_mr=7 took_ms=231"
    assert re.fullmatch(time + line, sent)
    assert re.fullmatch(
        time + r"WARNING  \S+: not sent idm=1 segment=2/2 channel=m0 code='CMS 500': unknown error", not_sent
    )


def test_json_has_one_object_for_each_event(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    (line,) = written(LogFormat.JSON, lambda: msglog.not_sent(42, 2, 2, "m0", "CMS 500", "erró"), tmp_path / "log")
    entry = json.loads(line)
    assert line.isascii()
    assert entry["time"].endswith("Z")
    assert abs((datetime.fromisoformat(entry.pop("time")) - before).total_seconds()) < 60
    assert entry == {
        "level": "warning", "logger": "gatewayd.message", "event": "segment.not_sent",
        "message": "not sent idm=42 segment=2/2 channel=m0 code='CMS 500': erró",
        "idm": 42, "segment": "2/2", "channel": "m0", "code": "CMS 500", "detail": "erró",
    }  # fmt: skip


def test_the_journal_gets_fields(tmp_path: Path) -> None:
    with journald(tmp_path / "journal") as journal, logging_to(JournalOutput(str(tmp_path / "journal"))) as logger:
        msglog.submitted(42, 1, 1, "m0", None, 231)
        assert fields(journal.recv(65536)) == {
            "MESSAGE": "sent idm=42 segment=1/1 channel=m0 tp_mr=- took_ms=231", "PRIORITY": "6",
            "SYSLOG_IDENTIFIER": "gatewayd", "LOGGER": "gatewayd.message", "GATEWAYD_EVENT": "segment.sent",
            "GATEWAYD_IDM": "42", "GATEWAYD_SEGMENT": "1/1", "GATEWAYD_CHANNEL": "m0", "GATEWAYD_TOOK_MS": "231",
        }  # fmt: skip
        logger.getChild("channel").warning("%s: parked: %s", "m1", "the SIM was changed")
        entry = fields(journal.recv(65536))
        assert (entry["GATEWAYD_CHANNEL"], entry["PRIORITY"]) == ("m1", "4")
        assert entry["MESSAGE"] == "m1: parked: the SIM was changed"
        raise_and_log(logger, FORGED)
        entry = fields(journal.recv(65536))
        first, *rest = entry["MESSAGE"].split("\n")
        assert first == "it failed"
        assert rest[0].startswith("Traceback"), "with the traceback, in one entry"
        assert entry["PRIORITY"] == "3"


def raise_and_log(logger: logging.Logger, message: str) -> None:
    try:
        raise ValueError(message)
    except ValueError:
        logger.exception("it failed")


@pytest.mark.parametrize("wanted", [LogFormat.TEXT, LogFormat.JSON, LogFormat.JOURNAL])
def test_a_traceback_cannot_forge_a_line(wanted: LogFormat, tmp_path: Path) -> None:
    lines = written(wanted, lambda: raise_and_log(logging.getLogger("gatewayd"), FORGED), tmp_path / "log")
    first, *rest = lines
    assert "it failed" in first
    if wanted is LogFormat.JSON:
        assert not rest
        assert "ValueError: no\n" in json.loads(first)["exception"]
    else:
        marked = re.compile(r"(<3>)?    \| " if wanted is LogFormat.JOURNAL else r"    \| ")
        assert len(rest) >= 3
        assert all(marked.match(line) and line.isprintable() for line in rest)


@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("wanted", [LogFormat.TEXT, LogFormat.JSON, LogFormat.JOURNAL])
def test_no_device_and_no_caller_can_forge_a_line(wanted: LogFormat, event: str, tmp_path: Path) -> None:
    kept = Kept()
    with logging_to(kept):
        EVENTS[event](FORGED, FORGED)
    _forget()
    lines = written(wanted, lambda: EVENTS[event](FORGED, FORGED), tmp_path / "log")
    assert len(lines) == len(kept.records) > 0
    for line, record in zip(lines, kept.records, strict=True):
        assert line.isprintable()
        if wanted is LogFormat.JOURNAL:
            priority = {"ERROR": 3, "WARNING": 4, "INFO": 6, "DEBUG": 7}[record.levelname]
            assert line.startswith(f"<{priority}>gatewayd.")
        if wanted is LogFormat.JSON:
            assert json.loads(line)["event"] == record.event  # type: ignore[attr-defined]


def test_other_lines_cannot_be_forged_either(tmp_path: Path) -> None:
    log = logging.getLogger("gatewayd.channel")
    (line,) = written(LogFormat.TEXT, lambda: log.warning("%s: %s", "m0", FORGED), tmp_path / "log")
    assert line.isprintable()


def test_fields_do_not_hide_what_every_entry_has() -> None:
    kept = Kept()
    with logging_to(kept):
        for call in EVENTS.values():
            call(NUMBER, "x")
    own = {"time", "level", "logger", "event", "message", "exception", "priority"}
    for record in kept.records:
        assert not own & set(record.fields)  # type: ignore[attr-defined]
        assert all(re.fullmatch(r"[a-z][a-z_]*", name) for name in record.fields)  # type: ignore[attr-defined]


def test_what_is_endless_is_cut(tmp_path: Path) -> None:
    log = logging.getLogger("gatewayd.channel")

    def work() -> None:
        log.warning("%s: %s", "m0", "ü" * 1_000_000)
        raise_and_log(log, "\n".join("x" * 100 for _ in range(100_000)))

    first, *_ = lines = written(LogFormat.TEXT, work, tmp_path / "log")
    assert first.endswith("characters more)")
    assert sum(map(len, lines)) < 40_000
    with journald(tmp_path / "journal") as journal, logging_to(JournalOutput(str(tmp_path / "journal"))) as logger:
        raise_and_log(logger, "ü" * 1_000_000)
        assert "[…]" in fields(journal.recv(1 << 20))["MESSAGE"]


def test_a_log_call_with_the_wrong_values_does_no_harm(tmp_path: Path) -> None:
    log = logging.getLogger("gatewayd")
    (line,) = written(LogFormat.TEXT, lambda: log.info("%d of %d", "one"), tmp_path / "log")
    assert line.endswith("%d of %d (its values do not fit)")


# -- numbers and texts --


def test_every_event_is_tried_here() -> None:
    own = {
        name
        for name, each in vars(msglog).items()
        if inspect.isfunction(each) and each.__module__ == msglog.__name__ and not name.startswith("_")
    }
    assert own - NO_EVENTS == set(EVENTS)


def everything(work: Callable[[], object]) -> str:
    """What `work` logs, in all formats."""
    kept = Kept()
    with logging_to(kept):
        work()
    styles = (TextStyle(), PrefixStyle(), JsonStyle(), JournalStyle())
    return "\n".join(style(record).decode() for record in kept.records for style in styles)


@given(st.from_regex(r"\A\+[1-9][0-9]{8,14}\Z"), st.sampled_from([*EVENTS]))
def test_no_event_shows_a_number(number: str, event: str) -> None:
    shown = everything(lambda: EVENTS[event](number, "text"))
    assert shown
    assert number[1:] not in shown
    assert number[-6:] not in re.sub(r"\d{4}-\d\d-\d\d[ T][\d:,.]+Z?", "", shown)
    assert "secret" not in shown


@given(st.text(min_size=1, max_size=300))
def test_no_text_is_shown_and_how_long_it_is(text: str) -> None:
    msglog.configure(mask=True)
    line = msglog.masked_line(f'+CMT: "{NUMBER}",,"{text}"')
    assert line.startswith("+CMT:… (")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("to +598 98 344 484 now", "to +59898****84 now"),
        ("'098344484' is none", "'098****84' is none"),
        ("0791958900000010040B919589384444F800008021", "(42 hex digits)"),
        ("idm 12345678 of message 1234567", "idm 12345678 of message 1234567"),
        ("the SIM was changed: ICCID 8959800000000000012 instead of IMSI 748010000000001",) * 2,
        ("/dev/serial/by-id/usb-HUAWEI_E173_0123456789 is away",) * 2,
        ("took 1234567 ms for 12345678 octets on 2026-07-12 10:00",) * 2,
        ("DETAIL:  Failing row contains (1, hola mamá).", "(values are masked)"),
        ("[SQL: INSERT …]\n[parameters: ('hola mamá', 1)]", "[SQL: INSERT …]\n(values are masked)"),
    ],
)
def test_scrubbed(said: str, shown: str) -> None:
    assert msglog.scrubbed(said) == shown


def test_exceptions_and_other_lines_are_scrubbed_too(tmp_path: Path) -> None:
    def work() -> None:
        log = logging.getLogger("gatewayd.spool")
        log.warning("no such number: %s", NUMBER)
        raise_and_log(log, f"no such number: {NUMBER}\nDETAIL:  Failing row contains (1, hola).")

    text = "\n".join(written(LogFormat.TEXT, work, tmp_path / "log"))
    assert NUMBER[1:] not in text
    assert "hola" not in text
    assert text.count("+59898****84") == 2


def test_everything_is_shown_to_who_asks_for_it() -> None:
    msglog.configure(mask=False)
    shown = everything(lambda: [call(NUMBER, "my words") for call in EVENTS.values()])
    assert NUMBER in shown


# -- first, again, over --


def levels(work: Callable[[], object]) -> list[str]:
    kept = Kept()
    with logging_to(kept):
        work()
    return [record.levelname for record in kept.records]


def test_first_failure_warning_repeats_debug_recovery_info() -> None:
    kept = Kept()
    log = logging.getLogger("gatewayd.spool")
    trouble = msglog.Trouble(log)
    with logging_to(kept):
        for reason in ("locked", "locked", "full", "locked"):
            trouble.failed(reason, "no writes: %s", reason)
        assert trouble.active
        trouble.recovered("writes again")
        trouble.recovered("writes again")
        assert not trouble.active
        trouble.failed("full", "no writes: %s", "full")
    assert [(record.levelname, record.getMessage()) for record in kept.records] == [
        ("WARNING", "no writes: locked"),
        ("DEBUG", "no writes: locked"),
        ("WARNING", "no writes: full"),
        ("DEBUG", "no writes: locked"),
        ("INFO", "writes again (after 4 failures)"),
        ("WARNING", "no writes: full"),
    ]


def test_trouble_does_not_grow() -> None:
    trouble = msglog.Trouble()
    for n in range(10_000):
        trouble.level(n)
        msglog.webhook_failed(f"https://example.net/{n}", "ev", 500, 1, 1.0)
    assert len(trouble._kinds) == len(msglog._endpoints) == msglog.MAX_KINDS


def test_refusals_of_one_code_warn_once_until_the_channel_sends() -> None:
    def refuse(code: str, channel: str = "m0") -> None:
        msglog.not_sent(1, 1, 1, channel, code, "")

    def send(channel: str = "m0") -> None:
        msglog.submitted(1, 1, 1, channel, 1, 1)

    kept = Kept()
    with logging_to(kept):
        for each in ("CMS 500", "CMS 500", "CMS 38", "CMS 500"):
            refuse(each)
        refuse("CMS 500", "m1")
        send("m2")
        send()
        send("m1")
        refuse("CMS 500")
    assert [(record.levelname, record.event) for record in kept.records] == [  # type: ignore[attr-defined]
        ("WARNING", "segment.not_sent"),
        ("DEBUG", "segment.not_sent"),
        ("WARNING", "segment.not_sent"),
        ("DEBUG", "segment.not_sent"),
        ("WARNING", "segment.not_sent"),
        ("INFO", "segment.sent"),
        ("INFO", "segment.sent"),
        ("INFO", "channel.sends_again"),
        ("INFO", "segment.sent"),  # m1 had one refusal, and that was said
        ("WARNING", "segment.not_sent"),
    ]
    again = kept.records[7]
    assert again.getMessage() == "the channel sends again channel=m0 unsaid=2 refused=4"


def test_a_webhook_warns_once_until_it_works() -> None:
    def work() -> None:
        for attempt in (1, 2, 3):
            msglog.webhook_failed("crm", "ev1", 503, attempt, 2.0)
        msglog.webhook_delivered("crm", "ev1", 4)
        msglog.webhook_recovered("crm")
        msglog.webhook_delivered("crm", "ev2", 1)
        msglog.webhook_failed("crm", "ev3", "timed out", 1, 2.0)
        msglog.webhook_dead("crm", "ev3", 20)

    assert levels(work) == ["WARNING", "DEBUG", "DEBUG", "DEBUG", "INFO", "DEBUG", "WARNING", "ERROR"]


@pytest.mark.parametrize(
    ("type_", "class_", "level"),
    [
        ("message.failed", "application", "WARNING"),
        ("message.failed", "campaign", "INFO"),  # of a list, some numbers are always bad
        ("message.undelivered", "application", "INFO"),
        ("message.undelivered", "alert", "WARNING"),
        ("message.blocked", "campaign", "INFO"),
        ("message.in_doubt", "campaign", "WARNING"),
        ("message.delivered", "alert", "INFO"),
    ],
)
def test_what_somebody_on_call_is_told(type_: str, class_: str, level: str) -> None:
    assert levels(lambda: msglog.state_changed(type_, 1, class_, MessageState.FAILED, "none", "")) == [level]


def test_what_probes_ask_is_debug() -> None:
    def work() -> None:
        msglog.access("GET", "/metrics", 200, 1.0, "", "127.0.0.1", 1)
        msglog.access("GET", "/readyz", 503, 1.0, "", "127.0.0.1", 1)
        msglog.access("POST", "/SendSMS", 200, 1.0, "crm", "127.0.0.1", 1)
        msglog.access("POST", "/SendSMS", 403, 1.0, "", "127.0.0.1", 1)
        msglog.access("POST", "/SendSMS", 500, 1.0, "", "127.0.0.1", 1)

    assert levels(work) == ["DEBUG", "INFO", "INFO", "INFO", "WARNING"]


# -- readers that do not read --


def read_all(fd: int) -> bytes:
    """What can be read now."""
    found = b""
    while select.select([fd], [], [], 0)[0] and (octets := os.read(fd, 65536)):
        found += octets
    return found


@pytest.mark.parametrize("kind", ["pipe", "shared pipe", "socket"])
def test_a_reader_that_does_not_read_stops_nobody(kind: str) -> None:
    """It loses lines, is told how many, and gets each of the others whole."""
    if kind == "socket":
        one, other = socket.socketpair()
        reading, writing = one.detach(), other.detach()
    else:
        reading, writing = os.pipe()
    output = StreamOutput(TextStyle(), writing)
    if kind == "shared pipe":
        os.set_blocking(writing, False)
    log = logging.getLogger("gatewayd")
    try:
        with logging_to(output):
            for n in range(20_000):
                log.info("line %06d %s", n, "x" * 100)
            lost = output.lost
            assert 0 < lost < 20_000
            text = read_all(reading).decode()
            log.info("line 020000 again")
            text += read_all(reading).decode()
            assert output.lost == 0
    finally:
        os.close(reading)
        os.close(writing)
    *lines, notice, last = text.splitlines()
    assert all(re.fullmatch(rf".{{23}} INFO     gatewayd: line \d{{6}} {'x' * 100}", line) for line in lines)
    assert len(lines) == 20_000 - lost
    assert f"{lost} lines of the log are lost" in notice
    assert "WARNING" in notice
    assert last.endswith("line 020000 again")


def test_a_reader_that_is_gone_stops_nobody() -> None:
    reading, writing = os.pipe()
    output = StreamOutput(TextStyle(), writing)
    with logging_to(output) as log:
        os.close(reading)
        for _ in range(10):
            log.info("is anybody there?")
        assert output.lost == 10
    os.close(writing)


def test_a_closed_descriptor_stops_nobody(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        output = StreamOutput(TextStyle(), file.fileno())
    with logging_to(output) as log:
        log.info("is anybody there?")
        assert output.lost == 1


def test_what_comes_after_the_end_goes_nowhere(tmp_path: Path) -> None:
    """A reload replaces the output while a thread may be using it; its file's number is soon another's."""
    reading, writing = os.pipe()
    output = StreamOutput(TextStyle(), writing)
    assert output._own is not None
    number = output._own
    output.close()
    with (tmp_path / "spool.db").open("wb") as file:
        assert file.fileno() == number
        output.handle(logging.makeLogRecord({"msg": "too late"}))
    assert (tmp_path / "spool.db").read_bytes() == b""
    assert output.lost == 1
    assert read_all(reading) == b""
    os.close(reading)
    os.close(writing)


def test_without_a_journal_the_lines_go_to_standard_error(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        output = JournalOutput(str(tmp_path / "journal"), file.fileno())
        with logging_to(output) as log:
            log.info("before it is there")
            with journald(tmp_path / "journal") as journal:
                log.info("to the journal")
                assert fields(journal.recv(65536))["MESSAGE"] == "to the journal"
            log.warning("after it is gone")
            with journald(tmp_path / "journal") as journal:
                log.info("to the next")
                assert fields(journal.recv(65536))["MESSAGE"] == "to the next"
    assert (tmp_path / "log").read_text().splitlines() == [
        "<6>gatewayd: before it is there",
        "<4>gatewayd: after it is gone",
    ]


def test_a_journal_that_does_not_keep_up_stops_nobody(tmp_path: Path) -> None:
    with journald(tmp_path / "journal") as journal, logging_to(JournalOutput(str(tmp_path / "journal"))) as log:
        for n in range(2_000):
            log.info("line %d", n)
        (output,) = (each for each in log.handlers if isinstance(each, Output))
        lost = output.lost
        assert 0 < lost < 2_000
        got = [fields(journal.recv(65536))["MESSAGE"] for _ in range(2_000 - lost)]
        assert got == [f"line {n}" for n in range(2_000 - lost)]
        log.info("again")
        notice, again = fields(journal.recv(65536)), fields(journal.recv(65536))
        assert notice["MESSAGE"].startswith(f"{lost} lines of the log are lost")
        assert (notice["PRIORITY"], again["MESSAGE"]) == ("4", "again")


# -- choosing --


def test_auto_takes_the_journal_only_where_standard_error_leads_to_it(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        fd = file.fileno()
        found = os.fstat(fd)
        ours = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        inherited = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino + 1}"}
        assert goes_to_journal(ours, fd)
        for other in (inherited, {}, {"JOURNAL_STREAM": "?"}):
            assert not goes_to_journal(other, fd)
        assert isinstance(output_for(LogFormat.AUTO, ours, fd=fd), JournalOutput)
        assert isinstance(output_for(LogFormat.AUTO, inherited, fd=fd), StreamOutput)
    assert not goes_to_journal(ours, fd)


# -- the daemon --


def away(tmp_path: Path, **log: Any) -> dict[str, Any]:
    """A configuration whose modem is not there."""
    found = configuration(tmp_path, [str(tmp_path / "no-modem")])
    found["gateway"]["logging"] = log
    return found


async def answers(tmp_path: Path) -> bool:
    """Whether the daemon serves its control socket."""
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(tmp_path / "control.sock"))) as session,
            session.get("http://gatewayd/healthz") as response,
        ):
            return response.status == 200
    except (OSError, aiohttp.ClientError):
        return False


async def start(tmp_path: Path, config: dict[str, Any], stderr: int) -> asyncio.subprocess.Process:
    path = tmp_path / "gatewayd.yaml"
    path.write_text(json.dumps(config))
    arguments = ("-m", "gatewayd", "run", "-c", str(path))
    return await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=stderr, cwd=ROOT)


@pytest.mark.parametrize("state", ["gone", "full"])
async def test_a_daemon_whose_log_nobody_reads_works_and_stops(state: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    if state == "full":
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while os.write(writing, b"x" * 4096):
                pass
        os.set_blocking(writing, True)
    else:
        os.close(reading)
    process = await start(tmp_path, away(tmp_path, level="debug"), writing)
    os.close(writing)
    try:
        await until(lambda: answers(tmp_path))
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        if state == "full":
            os.close(reading)


async def test_a_daemon_that_logs_json_logs_nothing_else(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        process = await start(tmp_path, away(tmp_path, format="json", level="debug"), file.fileno())
        try:
            await until(lambda: answers(tmp_path))
        finally:
            process.terminate()
            assert await process.wait() == 0
    entries = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert {"time", "level", "logger", "message"} <= set.intersection(*(set(entry) for entry in entries))
    assert entries[-1]["message"] == "stopped"
    assert any(entry.get("channel") == "m0" and entry["level"] == "warning" for entry in entries)


async def test_with_its_standard_error_closed_the_daemon_writes_into_no_other_file(tmp_path: Path) -> None:
    """Else the next file opened would be number 2: the spool, or a modem."""
    path = tmp_path / "gatewayd.yaml"
    path.write_text(json.dumps(away(tmp_path)))
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-m", "gatewayd", "run", "-c", str(path)]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT)
    try:
        await until(lambda: answers(tmp_path))
        assert Path(f"/proc/{process.pid}/fd/2").readlink() == Path(os.devnull)
    finally:
        process.terminate()
        assert await process.wait() == 0


async def test_the_log_shows_neither_numbers_nor_texts_even_at_debug(tmp_path: Path) -> None:
    text, subscriber = "wombat pickles at noon", "+59898344401"  # who answers
    changes: dict[str, Any] = {"gateway": {"logging": {"level": "debug", "format": "text"}}}
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        daemon(tmp_path, configuration(tmp_path, [sim.port(0)], **changes)) as gateway,
    ):
        await gateway.send(subscriber, text)

        async def came() -> bool:
            return any(" from=+59898****01" in line for line in gateway.log)

        await until(came, lambda: gateway.log[-5:])
        number = sim.number(0)
    log = "".join(gateway.log)
    assert "accepted idm=" in log
    for secret in ("wombat", "pickles", text.encode().hex(), text.encode("utf-16-be").hex(), "98344401", number[1:]):
        assert secret.lower() not in log.lower(), secret


def test_the_manual_lists_every_event() -> None:
    kept = Kept()
    with logging_to(kept):
        for call in EVENTS.values():
            call(NUMBER, "x")
        for _ in range(2):
            msglog.not_sent(1, 1, 1, "m0", "CMS 500", "")
        msglog.submitted(1, 1, 1, "m0", 1, 1)
        msglog.state_changed("message.failed", 1, "alert", MessageState.FAILED, "none", "x")
    manual = (ROOT / "docs/logging.md").read_text()
    for record in kept.records:
        event, names = record.event, record.fields  # type: ignore[attr-defined]
        row = next((line for line in manual.splitlines() if line.startswith(f"| `{event}`")), "")
        if event.startswith("message.") and event not in ("message.accepted", "message.duplicate"):
            row = next(line for line in manual.splitlines() if line.startswith("| `message.…`"))
        assert row, event
        assert [name for name in names if f"`{name}`" not in row and name != "detail"] == [], event
