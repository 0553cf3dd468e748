"""Kannel's sendsms: its clients get the answers they know, and what cannot be done is refused, never dropped."""

from __future__ import annotations

import asyncio
import encodings
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatewayd.model import ChannelState
from gatewayd.modems.simulator.process import simulator_process
from gatewayd.router.kannel_dlr import DlrEvent, dlr, mask_of
from gatewayd.spool.optouts import OptState, Said, Source
from tests.daemon import configuration, daemon
from tests.faults import all_ready
from tests.http.helpers import FORM, READ, SEND, TRUSTED, Gateway, bearer, gateway, view

PATH = "/cgi-bin/sendsms"
ON = {"kannel_path": PATH}
KEY = {"username": "send", "password": SEND}
GOOD = {**KEY, "to": "098344484", "from": "12345", "text": "This is my SMS"}
ACCEPTED = (202, "0: Accepted for delivery")
QUEUED = (202, "3: Queued for later delivery")


@dataclass
class Reply:
    status: int
    text: str
    headers: Any

    @property
    def both(self) -> tuple[int, str]:
        return self.status, self.text

    @property
    def idm(self) -> list[int]:
        return [int(each) for each in self.headers["X-Gatewayd-Idm"].split()]


async def ask(gate: Gateway, parameters: Any = None, *, method: str = "GET", path: str = PATH, **more: Any) -> Reply:
    more["headers"] = {"User-Agent": "curl/8", **more.get("headers", {})}
    async with gate.client.request(method, gate.url + path, params=parameters, **more) as response:
        if response.status != 404 and response.status != 405:
            assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        return Reply(response.status, await response.text(), response.headers)


async def opt_out(gate: Gateway, number: str) -> None:
    await gate.store.opt(Said(number, number, "opt_out", Source.OPERATOR, "test"), OptState.OUT)


async def test_a_text_is_accepted_once_it_is_on_disk(tmp_path: Path) -> None:
    async with gateway(tmp_path, **ON) as gate:
        said = await ask(gate, {**GOOD, "account": "acct-7", "priority": "3"})
        assert said.both == ACCEPTED
        row = gate.row(said.idm[0])
        assert (row["to_given"], row["to_number"], row["text"]) == ("098344484", "+59898344484", "This is my SMS")
        assert (row["api_key"], row["client_ref"], row["priority"]) == ("send", "acct-7", 7500)
        assert (row["callback_url"], row["pin_channel"], row["state"]) == (None, "", 1)


async def test_it_is_served_only_where_the_configuration_wants_it(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        assert (await ask(gate, GOOD)).status == 404
        document = (await gate.get("/api/v1/openapi.json", key=None)).json
        assert not any("sendsms" in path for path in document["paths"])
    async with gateway(tmp_path, kannel_path="/sms/push") as gate:
        assert (await ask(gate, GOOD, path="/sms/push")).both == ACCEPTED
        assert (await ask(gate, GOOD)).status == 404
        document = (await gate.get("/api/v1/openapi.json", key=None)).json
        assert set(document["paths"]["/sms/push"]) == {"get", "post"}


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("GET", {"parameters": GOOD}),
        ("GET", {"parameters": {"user": "send", "pass": SEND, "to": "098344484", "text": "This is my SMS"}}),
        ("GET", {"parameters": {"password": SEND, "to": "098344484", "text": "This is my SMS"}}),
        ("GET", {"parameters": {"to": "098344484", "text": "This is my SMS"}, "headers": bearer(SEND)}),
        ("GET", {"parameters": GOOD, "headers": {"x-api-key": "gw_other", "authorization": "Bearer gw_other"}}),
        ("POST", {"parameters": GOOD}),
        ("POST", {"data": GOOD}),
        ("POST", {"data": GOOD, "headers": {"Content-Type": f"{FORM}; charset=utf-8"}}),
        (
            "POST",
            {
                "data": "This is my SMS",
                "headers": {
                    "Content-Type": "text/plain; charset=ISO-8859-1",
                    "X-Kannel-Username": "send", "X-Kannel-Password": SEND, "X-Kannel-To": " 098344484",
                },
            },
        ),
        (
            "POST",
            {
                "data": b"This is my SMS",
                "headers": {
                    "Content-Type": "application/octet-stream", "X-Kannel-Coding": "0",
                    "x-kannel-username": "send", "x-kannel-password": SEND, "x-kannel-to": "098344484",
                },
            },
        ),
    ],
)  # fmt: skip
async def test_the_ways_to_ask(tmp_path: Path, method: str, arguments: dict[str, Any]) -> None:
    async with gateway(tmp_path, **ON) as gate:
        said = await ask(gate, method=method, **arguments)
        assert said.both == ACCEPTED
        row = gate.row(said.idm[0])
        assert (row["to_number"], row["text"], row["api_key"]) == ("+59898344484", "This is my SMS", "send")


@pytest.mark.parametrize(
    "changes",
    [
        {"password": "gw_wrong"},
        {"password": None},
        {"username": "other"},
        {"username": "read", "password": READ},
        {"password": "\xe9\r\nX: \xff"},
        {"password": " "},
    ],
)
async def test_who_is_not_known_is_told_as_kannel_does(tmp_path: Path, changes: dict[str, str | None]) -> None:
    async with gateway(tmp_path, **ON) as gate:
        asked = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
        said = await ask(gate, asked)
        assert said.both == (403, "Authorization failed for sendsms")
        assert (await ask(gate, asked, method="POST")).both == (403, "Authorization failed for sendsms")
        assert gate.queued() == 0


async def test_trusted_networks_need_no_key_unless_it_may_be_a_web_page_that_asks(tmp_path: Path) -> None:
    """An <img> on any web page makes the browser of somebody trusted GET, and says no Origin."""
    asked = {"to": "098344484", "text": "x"}
    async with gateway(tmp_path, **ON, **TRUSTED) as gate:
        said = await ask(gate, {**asked, "username": "any", "password": ""})
        assert said.both == ACCEPTED
        assert gate.row(said.idm[0])["api_key"] == "host 127.0.0.1"
        for headers in (
            {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}, {"Referer": "http://evil.example/"},
            {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}, {"Cookie": "a=b"},
        ):  # fmt: skip
            assert (await ask(gate, asked, headers=headers)).status == 403
        assert (await ask(gate, asked, method="POST", headers={"Origin": "http://evil.example"})).status == 403
        assert (await ask(gate, GOOD, headers={"User-Agent": "Mozilla/5.0"})).both == ACCEPTED, "a key is a key"
        assert gate.queued() == 2


async def test_a_look_does_not_send(tmp_path: Path) -> None:
    async with gateway(tmp_path, **ON) as gate:
        assert (await ask(gate, GOOD, method="HEAD")).status == 405
        assert gate.queued() == 0


async def test_several_receivers_are_accepted_all_or_none(tmp_path: Path) -> None:
    async with gateway(tmp_path, **ON) as gate:
        said = await ask(gate, {**GOOD, "to": "098344484 +59898344485  0059898344484"})
        assert said.both == ACCEPTED
        assert [gate.row(idm)["to_number"] for idm in said.idm] == ["+59898344484", "+59898344485"], "once each"
        said = await ask(gate, {**GOOD, "to": "098344486 12 098344487"})
        assert said.status == 400
        assert said.text.startswith("to: 12 is too short")
        many = await ask(gate, method="POST", data={**GOOD, "to": " ".join(["098344486"] * 1001)})
        assert many.both == (400, "to: has 1001 numbers, at most 1000 are taken, rejected")
        assert gate.queued() == 2


async def test_the_ids_of_many_receivers_fit_into_a_header(tmp_path: Path) -> None:
    """Clients and proxies refuse headers beyond 8 or even 4 KiB, and would then send it all once more."""
    numbers = [f"+5989834{number:04}" for number in range(1000)]
    async with gateway(tmp_path, **ON) as gate:
        for number in numbers[:600]:
            await opt_out(gate, number)
        said = await ask(gate, method="POST", data={**GOOD, "to": " ".join(numbers)})
        assert said.both == ACCEPTED
        shown = said.headers["X-Gatewayd-Idm"].split()
        assert (shown[0], shown[-1]) == ("1", "...")
        assert said.headers["X-Gatewayd-Denied"].split()[-1] == "..."
        assert sum(len(name) + len(value) for name, value in said.headers.items()) < 4000


async def test_receivers_that_opted_out_are_denied(tmp_path: Path) -> None:
    """Kannel denies with 400 if it denies all of them; of several it sends to the others."""
    denied = (400, "Number(s) has/have been denied by white- and/or black-lists.")
    async with gateway(tmp_path, **ON) as gate:
        await opt_out(gate, "+59898344484")
        said = await ask(gate, GOOD)
        assert said.both == denied
        assert gate.row(said.idm[0])["state"] == 3
        said = await ask(gate, {**GOOD, "to": "098344484 098344485"})
        assert said.both == ACCEPTED
        assert said.headers["X-Gatewayd-Denied"] == "+59898344484"
        assert [gate.row(idm)["state"] for idm in said.idm] == [3, 1]


async def test_deferred_and_validity_are_minutes(tmp_path: Path) -> None:
    async with gateway(tmp_path, **ON) as gate:
        said = await ask(gate, {**GOOD, "deferred": "10", "validity": "60"})
        assert said.both == QUEUED
        row = gate.row(said.idm[0])
        assert row["expires_at"] - row["not_before"] == 50 * 60_000
        assert 0 <= row["accepted_at"] - (row["not_before"] - 600_000) < 60_000
        said = await ask(gate, {**GOOD, "deferred": "0", "validity": "-1"})
        assert said.both == ACCEPTED
        assert gate.row(said.idm[0])["expires_at"] is None
        said = await ask(gate, {**GOOD, "deferred": "10", "validity": "5"})
        assert (said.status, said.text.partition(":")[0]) == (400, "deferred")
        assert (await ask(gate, {**GOOD, "validity": "0"})).text.startswith("validity: ")


async def test_it_is_queued_for_later_while_nothing_can_be_sent(tmp_path: Path) -> None:
    async with gateway(tmp_path, **ON) as gate:
        gate.operator.why = "paused by test"
        assert (await ask(gate, GOOD)).both == QUEUED
        gate.operator.why = ""
        gate.operator.views = [view("sim1", ChannelState.DOWN)]
        assert (await ask(gate, GOOD)).both == QUEUED


@pytest.mark.parametrize(
    ("given", "octets", "text"),
    [
        ("", "a%C3%B1o+%E2%82%AC%F0%9F%98%80", "año €😀"),
        ("charset=ISO-8859-1", "a%F1o", "año"),
        ("charset=windows-1252", "a%F1o+%80", "año €"),
        ("charset=iso-8859-15&coding=0", "%A4", "€"),
        ("coding=2", "%00a%20%AC%D8%3D%DE%00", "a€😀"),
        ("coding=2&charset=UTF-8", "a%C3%B1o", "año"),
        ("charset=UCS-2BE&coding=2", "%20%AC", "€"),
        ("charset=GBK", "%C4%E3%BA%C3", "你好"),
        ("charset=latin1", "a%F1o", "año"),
        ("charset=KOI8-U", "%D0", "п"),
        ("charset=Shift-JIS", "%93%FA", "日"),
        ("charset=EUC-KR", "%C7%D1", "한"),
        ("charset=UTF-16LE", "a%00", "a"),
        ("charset=rot13", "abc", None),
        ("charset=unicode_escape", "abc", None),
        ("charset=utf-7", "abc", None),
        ("charset=idna", "abc", None),
        ("charset=%00", "abc", None),
        ("charset=" + "x" * 500, "abc", None),
        ("", "%FF", None),
        ("coding=2", "%00", None),
        ("coding=2", "%D8%00", None),
    ],
)
async def test_the_text_is_in_its_character_set(tmp_path: Path, given: str, octets: str, text: str | None) -> None:
    async with gateway(tmp_path, **ON) as gate:
        query = f"username=send&password={SEND}&to=098344484&text={octets}&{given}"
        status = await gate.raw(
            f"GET {PATH}?{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode(), finish=False
        )
        if text is None:
            assert b" 400 " in status.split(b"\r\n")[0]
            assert b"Charset or body misformed, rejected" in status
            assert gate.queued() == 0
        else:
            assert b" 202 " in status.split(b"\r\n")[0]
            assert gate.row(1)["text"] == text


REFUSED: dict[str, tuple[dict[str, str | None], int, str]] = {
    "no receiver": ({"to": None}, 400, "Missing receiver number, rejected"),
    "empty receiver": ({"to": ""}, 400, "Empty receiver number not allowed, rejected"),
    "only spaces": ({"to": "  "}, 400, "Empty receiver number not allowed, rejected"),
    "letters": ({"to": "MYBANK"}, 400, "to: "),
    "no text": ({"text": None}, 400, "text: "),
    "empty text": ({"text": ""}, 400, "text: "),
    "too long": ({"text": "x" * 1600}, 400, "text: "),
    "NUL": ({"text": "a\0b"}, 400, "text: "),
    "UDH": ({"udh": "\x05\x00\x03\x01\x02\x01"}, 400, "UDH is not in this version, rejected"),
    "8-bit": ({"coding": "1"}, 400, "Coding 1 (8-bit data) is not in this version, rejected"),
    "coding": ({"coding": "3"}, 400, "Coding field misformed, rejected"),
    "flash": ({"mclass": "0"}, 400, "MClass 0 is not in this version, rejected"),
    "class": ({"mclass": "3"}, 400, "MClass 3 is not in this version, rejected"),
    "no class": ({"mclass": "4"}, 400, "MClass field misformed, rejected"),
    "old flash": ({"flash": "1"}, 400, "Flash 1 is not in this version, rejected"),
    "waiting": ({"mwi": "0"}, 400, "MWI 0 is not in this version, rejected"),
    "compressed": ({"compress": "1"}, 400, "Compress 1 is not in this version, rejected"),
    "protocol": ({"pid": "64"}, 400, "PID 64 is not in this version, rejected"),
    "reply path": ({"rpi": "1"}, 400, "RPI 1 is not in this version, rejected"),
    "other DCS": ({"alt-dcs": "1"}, 400, "Alt-DCS 1 is not in this version, rejected"),
    "priority": ({"priority": "4"}, 400, "Priority field misformed, rejected"),
    "no number": ({"validity": "1h"}, 400, "Validity field misformed, rejected"),
    "far too long": ({"validity": "999999999"}, 400, "Validity field misformed, rejected"),
    "absurd": ({"deferred": "9" * 5000}, 400, "Deferred field misformed, rejected"),
    "mask": ({"dlr-mask": "64"}, 400, "DLR-Mask field misformed, rejected"),
    "URL": ({"dlr-mask": "31", "dlr-url": "ftp://h/"}, 400, "DLR-URL field misformed, rejected"),
    "escape in the host": ({"dlr-mask": "31", "dlr-url": "http://%p/"}, 400, "DLR-URL field misformed, rejected"),
    "account": ({"account": "a\nb"}, 400, "account: "),
}


async def test_names_of_character_sets_are_not_remembered(tmp_path: Path) -> None:
    """Python keeps each name that it does not know, of whatever length, for ever."""
    async with gateway(tmp_path, **ON) as gate:
        before = set(encodings._cache)  # type: ignore[attr-defined]
        for name in ("no-such-charset", "x" * 5000, "zlib", "koi8-x"):
            assert (await ask(gate, {**GOOD, "charset": name})).status == 400
        assert set(encodings._cache) == before  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", REFUSED)
async def test_what_cannot_be_done_is_refused_and_nothing_is_kept(tmp_path: Path, name: str) -> None:
    changes, status, text = REFUSED[name]
    asked = {each: value for each, value in {**GOOD, **changes}.items() if value is not None}
    async with gateway(tmp_path, **ON) as gate:
        said = await ask(gate, asked)
        assert said.status == status, said.text
        assert said.text.startswith(text)
        assert gate.queued() == 0


async def test_what_asks_for_nothing_and_what_is_only_a_hint_is_taken(tmp_path: Path) -> None:
    nothing = {
        "udh": "", "mclass": "-1", "mwi": "-1", "compress": "0", "pid": "0", "rpi": "0", "alt-dcs": "0", "coding": "0",
        "flash": "0", "smsc": "default", "dlr-mask": "0", "unknown": "x", "priority": "", "binfo": "b",
    }  # fmt: skip
    async with gateway(tmp_path, **ON) as gate:
        assert (await ask(gate, {**GOOD, **nothing})).both == ACCEPTED
        said = await ask(gate, {**GOOD, "smsc": "sim2"})
        assert gate.row(said.idm[0])["pin_channel"] == "sim2"


async def test_a_parameter_given_twice_is_refused(tmp_path: Path) -> None:
    async with gateway(tmp_path, **ON) as gate:
        said = await ask(gate, [*GOOD.items(), ("to", "098344485")])
        assert said.both == (400, "to: is given more than once, rejected")
        said = await ask(gate, [*GOOD.items(), ("user", "send")])
        assert said.status == 400
        assert (await ask(gate, [(f"a{i}", "x") for i in range(101)])).status == 400


@pytest.mark.parametrize(
    ("kind", "status"),
    [("text/xml", 415), ("application/xml", 415), ("text/html", 415), ("application/json", 415), ("", 415),
     ("application/octet-stream", 400), ("multipart/form-data; boundary=x", 415)],
)  # fmt: skip
async def test_bodies_of_other_kinds_are_refused(tmp_path: Path, kind: str, status: int) -> None:
    headers = {"X-Kannel-Username": "send", "X-Kannel-Password": SEND, "X-Kannel-To": "098344484"}
    async with gateway(tmp_path, **ON) as gate:
        said = await ask(gate, method="POST", data=b"<message/>", headers={**headers, "Content-Type": kind})
        assert said.status == status
        assert said.text.startswith("Unsupported content-type, rejected" if status == 415 else "Coding 1")
        assert gate.queued() == 0


async def test_the_spool_in_trouble_is_a_temporal_failure(tmp_path: Path) -> None:
    async with gateway(tmp_path, **ON) as gate:
        blocker = sqlite3.connect(gate.path, isolation_level=None)
        blocker.execute("BEGIN EXCLUSIVE")
        try:
            said = await asyncio.wait_for(ask(gate, GOOD), 60)
            assert said.both == (503, "Temporal failure, try again later.")
            assert int(said.headers["Retry-After"]) > 0
        finally:
            blocker.rollback()
            blocker.close()


async def test_an_idempotency_key_sends_once(tmp_path: Path) -> None:
    async with gateway(tmp_path, **ON) as gate:
        headers = {"Idempotency-Key": "k1"}
        first = await ask(gate, GOOD, headers=headers)
        again = await ask(gate, GOOD, headers=headers)
        assert (again.both, again.idm) == (first.both, first.idm)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert (await ask(gate, {**GOOD, "text": "other"}, headers=headers)).status == 409
        assert gate.queued() == 1


async def test_a_delivery_report_calls_what_was_asked_for(tmp_path: Path) -> None:
    """What is kept with the message, made into a URL when something becomes of it."""
    template = "http://app.example/dlr?id=7&type=%d&to=%p&from=%P&acct=%o&b=%B&svc=%n&idm=%I&reply=%A&m=%#g#k#"
    asked = {
        **GOOD, "to": "098344484 +59898344485", "dlr-mask": "19", "dlr-url": template, "account": "a&b=c",
        "binfo": "%d", "meta-data": "?g?k=v%20w",
    }  # fmt: skip
    async with gateway(tmp_path, **ON) as gate:
        said = await ask(gate, asked)
        assert said.both == ACCEPTED
        rows = [gate.row(idm) for idm in said.idm]
    for row, to in zip(rows, ["098344484", "+59898344485"], strict=True):
        mask = mask_of(row["callback_format"])
        assert mask == 19
        url = dlr(row["callback_url"], mask, DlrEvent("message.delivered", row["id"], row["accepted_at"]))
        assert url is not None
        assert urlsplit(url).netloc == "app.example"
        assert dict(parse_qsl(urlsplit(url).query)) == {
            "id": "7", "type": "1", "to": to, "from": "12345", "acct": "a&b=c", "b": "%d", "svc": "send",
            "idm": str(row["id"]), "m": "v w",
        }  # fmt: skip
        assert dlr(row["callback_url"], mask, DlrEvent("message.sent", row["id"], 0)) is None


@pytest.mark.parametrize("missing", ["dlr-mask", "dlr-url"])
async def test_without_mask_or_url_there_is_no_callback(tmp_path: Path, missing: str) -> None:
    asked = {**GOOD, "dlr-mask": "31", "dlrurl": "http://app.example/"}
    asked.pop("dlrurl" if missing == "dlr-url" else missing)
    async with gateway(tmp_path, **ON) as gate:
        said = await ask(gate, asked)
        assert said.both == ACCEPTED
        row = gate.row(said.idm[0])
        assert (row["callback_url"], row["callback_format"]) == (None, "")


async def test_through_a_real_daemon_to_the_network(tmp_path: Path) -> None:
    async with simulator_process(modems=1, directory=tmp_path / "sim") as sim:
        config = configuration(
            tmp_path, [str(tmp_path / "sim" / "modem0")], http={"kannel": {"enabled": True, "path": "/push"}}
        )
        async with daemon(tmp_path, config) as running:
            await all_ready(running)
            url = f"http://{running.address}/push"
            asked = {"to": "098344484 098344485", "text": "año €", "priority": "1"}
            async with running.session.get(url, params=asked, headers={"User-Agent": "Kannel/1.4"}) as response:
                assert (response.status, await response.text()) == ACCEPTED
                ids = [int(each) for each in response.headers["X-Gatewayd-Idm"].split()]
            for idm in ids:
                await running.until(idm, lambda found: bool(found["delivery"] == "delivered"))
            rows = await sim.ledger("submit")
            assert {(row["to"], row["text"]) for row in rows} == {
                ("+59898344484", "año €"),
                ("+59898344485", "año €"),
            }


WORDS = """to text from charset coding udh mclass mwi compress pid alt-dcs rpi validity deferred dlr-mask dlr-url
dlrmask smsc priority account binfo meta-data flash username pass \xff % ="""
NAMES = st.sampled_from(WORDS.split())
VALUES = st.one_of(st.binary(max_size=20), st.sampled_from([b"0", b"1", b"2", b"-1", b"098344484", b"http://h/%d"]))
QUERIES = st.lists(st.tuples(NAMES, VALUES), max_size=12)


async def test_whatever_is_asked_there_is_no_5xx(tmp_path: Path) -> None:
    loop = asyncio.get_running_loop()
    async with gateway(tmp_path, **ON) as gate:

        @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
        @given(QUERIES, st.booleans(), st.binary(max_size=40))
        def check(pairs: list[tuple[str, bytes]], post: bool, body: bytes) -> None:
            query = "&".join(f"{quote(name)}={quote(value)}" for name, value in pairs)
            line = f"{'POST' if post else 'GET'} {PATH}?password={SEND}&{query} HTTP/1.1\r\nHost: x\r\n"
            head = f"{line}Content-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            answer = asyncio.run_coroutine_threadsafe(gate.raw(head.encode() + body, finish=False), loop).result(60)
            assert answer.split(b" ")[1][:1] in {b"2", b"4"}, answer

        await asyncio.to_thread(check)
