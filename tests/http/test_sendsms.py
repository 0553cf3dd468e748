"""`POST /SendSMS`: what is accepted is on disk, what is not is refused by name, and nothing of it is queued."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gatewayd.router.submission import SubmissionSettings
from tests.http.helpers import FORM, RESEND, SEND, gateway

PATHS = ["/SendSMS", "/Integra/resources/SMS/SendSMS"]
GOOD = {"destination": "098344484", "message": "This is my SMS", "campaign": "test1", "agent": "ana"}


@pytest.mark.parametrize("path", PATHS)
async def test_s4_47_s4_48_a_form_is_accepted_once_it_is_on_disk(tmp_path: Path, path: str) -> None:
    """S4-47: the path of the document. S4-48: its fields. S4-42: state 1 is TO PROCESS."""
    async with gateway(tmp_path) as gate:
        answer = await gate.send(path, data=GOOD)
        assert answer.status == 200
        assert answer.json == {
            "idm": 1,
            "state": 1,
            "state_name": "to_process",
            "reason": "",
            "segments": 1,
            "campaign": "test1",
            "agent": "ana",
            "destination": "+59898344484",
        }
        row = gate.row(answer.json["idm"])
        assert (row["to_given"], row["to_number"], row["text"]) == ("098344484", "+59898344484", "This is my SMS")
        assert (row["campaign"], row["agent"], row["api_key"]) == ("test1", "ana", "send")
        assert (row["class"], row["priority"], row["state"]) == ("application", 0, 1)


@pytest.mark.parametrize("path", PATHS)
async def test_s4_48_a_multipart_form_is_accepted(tmp_path: Path, path: str) -> None:
    async with gateway(tmp_path) as gate:
        with aiohttp.MultipartWriter("form-data") as form:
            for name, value in {**GOOD, "message": "ñandú €\r\nund 😀\r\n", "unknown": "x"}.items():
                part = form.append(value.encode())
                part.set_content_disposition("form-data", name=name)
            answer = await gate.send(path, data=form)
        assert answer.status == 200
        assert gate.row(answer.json["idm"])["text"] == "ñandú €\r\nund 😀\r\n"
        assert gate.row(answer.json["idm"])["agent"] == "ana"


async def test_only_destination_and_message_are_needed_and_unknown_fields_are_ignored(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.send(data={"destination": "7373", "message": "x", "device": "3", "data": "y"})
        assert (answer.status, answer.json["destination"], answer.json["campaign"]) == (200, "7373", "")


@pytest.mark.parametrize("charset", ["utf-8", "ISO-8859-1", "windows-1252"])
async def test_the_character_set_of_the_form_counts(tmp_path: Path, charset: str) -> None:
    async with gateway(tmp_path) as gate:
        body = b"destination=098344484&message=" + "año+y+".encode(charset)
        answer = await gate.send(data=body, headers={"Content-Type": f"{FORM}; charset={charset}"})
        assert answer.status == 200
        assert gate.row(answer.json["idm"])["text"] == "año y "


async def test_a_long_text_with_emoji_says_its_segments(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        text = "En un lugar de la Mancha 😀 " * 12
        answer = await gate.send(data={"destination": "098344484", "message": text})
        assert answer.status == 200
        assert answer.json["segments"] == 6
        assert gate.row(answer.json["idm"])["text"] == text


BAD: dict[str, tuple[dict[str, Any], int, list[str]]] = {
    "no field at all": ({"data": {}}, 422, ["destination", "message"]),
    "no destination": ({"data": {"message": "x"}}, 422, ["destination"]),
    "no message": ({"data": {"destination": "098344484"}}, 422, ["message"]),
    "neither": ({"data": {"campaign": "x"}}, 422, ["destination", "message"]),
    "empty message": ({"data": {**GOOD, "message": ""}}, 422, ["message"]),
    "only spaces": ({"data": {**GOOD, "message": " \t\r\n\u00a0"}}, 422, ["message"]),
    "empty destination": ({"data": {**GOOD, "destination": ""}}, 422, ["destination"]),
    "letters": ({"data": {**GOOD, "destination": "MYBANK"}}, 422, ["destination"]),
    "too short": ({"data": {**GOOD, "destination": "12"}}, 422, ["destination"]),
    "impossible": ({"data": {**GOOD, "destination": "+999123456789"}}, 422, ["destination"]),
    "two numbers": ({"data": {**GOOD, "destination": "098344484,098344485"}}, 422, ["destination"]),
    "absurdly long number": ({"data": {**GOOD, "destination": "1" * 100_000}}, 422, ["destination"]),
    "beyond the segments": ({"data": {**GOOD, "message": "x" * 1600}}, 422, ["message"]),
    "far beyond the segments": ({"data": {**GOOD, "message": "é" * 100_000}}, 422, ["message"]),
    "NUL in the message": ({"data": {**GOOD, "message": "a\0b"}}, 422, ["message"]),
    "NUL in the campaign": ({"data": {**GOOD, "campaign": "a\0b"}}, 422, ["campaign"]),
    "line break in the agent": ({"data": {**GOOD, "agent": "a\nb"}}, 422, ["agent"]),
    "long campaign": ({"data": {**GOOD, "campaign": "x" * 200}}, 422, ["campaign"]),
    "given twice": ({"data": [("destination", "7373"), ("destination", "7374")]}, 400, ["destination"]),
    "bad UTF-8": (
        {"data": b"destination=098344484&message=a%FFb", "headers": {"Content-Type": FORM}}, 400, ["message"]
    ),
    "bad UTF-8, not escaped": (
        {"data": b"destination=098344484&message=a\xffb", "headers": {"Content-Type": FORM}}, 400, ["message"]
    ),
    "half a surrogate pair": (
        {"data": b"destination=098344484&message=%ED%A0%80", "headers": {"Content-Type": FORM}}, 400, ["message"]
    ),
    "JSON": ({"json": GOOD}, 415, []),
    "plain text": ({"data": "hello"}, 415, []),
    "no content type": ({"data": b"destination=1", "headers": {"Content-Type": ""}}, 415, []),
    "unknown character set": ({"data": b"destination=1", "headers": {"Content-Type": f"{FORM}; charset=x"}}, 415, []),
    "compressed": (
        {"data": b"\x1f\x8b", "headers": {"Content-Type": FORM, "Content-Encoding": "gzip"}}, 415, []
    ),
    "many fields": ({"data": b"&".join([b"a=b"] * 1000), "headers": {"Content-Type": FORM}}, 400, []),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
async def test_bad_input_is_refused_by_name_and_nothing_is_queued(tmp_path: Path, name: str) -> None:
    arguments, status, fields = BAD[name]
    async with gateway(tmp_path) as gate:
        if name == "no content type":
            arguments = {**arguments, "skip_auto_headers": ["Content-Type"]}
        answer = await gate.send(**arguments)
        assert (answer.status, answer.fields) == (status, fields)
        assert gate.queued() == 0
        assert (await gate.send(data=GOOD)).status == 200


async def test_what_is_too_long_says_how_long_it_is(tmp_path: Path) -> None:
    async with gateway(tmp_path, submission=SubmissionSettings("UY", max_segments=2)) as gate:
        answer = await gate.send(data={**GOOD, "message": "x" * 400})
        assert "takes 3 segments" in answer.json["errors"][0]["reason"]
        assert "at most 2" in answer.json["errors"][0]["reason"]
        assert answer.json["type"].endswith(":too-long")


MULTIPART_BAD: dict[str, tuple[bytes, int, list[str]]] = {
    "empty": (b"", 400, []),
    "no boundary in it": (b"destination=098344484", 400, []),
    "cut off": (b'--B\r\nContent-Disposition: form-data; name="message"\r\n\r\nhello', 400, []),
    "no headers": (b"--B\r\nhello\r\n--B--\r\n", 400, []),
    "only the end": (b"--B--\r\n", 422, ["destination", "message"]),
    "a file": (
        b'--B\r\nContent-Disposition: form-data; name="message"; filename="a.txt"\r\n\r\nhello\r\n--B--\r\n',
        422,
        ["message"],
    ),
    "base64": (
        b'--B\r\nContent-Disposition: form-data; name=message\r\nContent-Transfer-Encoding: base64\r\n\r\nAA\r\n--B--',
        415,
        ["message"],
    ),
    "bad UTF-8": (b'--B\r\nContent-Disposition: form-data; name="message"\r\n\r\n\xff\r\n--B--\r\n', 400, ["message"]),
    "too many parts": (b'--B\r\nContent-Disposition: form-data; name="x"\r\n\r\n\r\n' * 500 + b"--B--\r\n", 400, []),
    "large headers": (b"--B\r\nX: " + b"x" * 10_000 + b"\r\n\r\nhello\r\n--B--\r\n", 400, []),
    "given twice": (
        b'--B\r\nContent-Disposition: form-data; name="message"\r\n\r\na\r\n' * 2 + b"--B--\r\n", 400, ["message"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MULTIPART_BAD)
async def test_a_bad_multipart_form_is_refused(tmp_path: Path, name: str) -> None:
    body, status, fields = MULTIPART_BAD[name]
    async with gateway(tmp_path) as gate:
        answer = await gate.send(data=body, headers={"Content-Type": "multipart/form-data; boundary=B"})
        assert (answer.status, answer.fields) == (status, fields)
        assert gate.queued() == 0


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", 'multipart/form-data; boundary=""', "multipart/form-data; boundary=" + "b" * 200],
)
async def test_multipart_without_a_usable_boundary(tmp_path: Path, content_type: str) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.send(data=b"x", headers={"Content-Type": content_type})
        assert (answer.status, answer.fields) == (400, [])


async def test_parameters_in_the_url_do_not_count(tmp_path: Path) -> None:
    """They would be in every proxy's log."""
    async with gateway(tmp_path) as gate:
        answer = await gate.send("/SendSMS?destination=098344484&message=x", data={"agent": "ana"})
        assert (answer.status, answer.fields) == (422, ["destination", "message"])
        assert (await gate.request("GET", "/SendSMS", key=SEND)).status == 405
        assert gate.queued() == 0


async def test_the_same_key_and_form_give_the_first_answer_and_one_message(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        headers = {"Idempotency-Key": "order-4711"}
        first = await gate.send(data=GOOD, headers=headers)
        again = await gate.send("/Integra/resources/SMS/SendSMS", data=GOOD, headers=headers)
        assert (first.status, again.status) == (200, 200)
        assert again.json == first.json
        assert "Idempotency-Replayed" not in first.headers
        assert again.headers["Idempotency-Replayed"] == "true"
        other = await gate.send(data={**GOOD, "message": "other"}, headers=headers)
        assert (other.status, other.fields) == (409, ["Idempotency-Key"])
        elsewhere = await gate.send("/api/v1/messages", json={"to": "7373", "text": "x"}, headers=headers)
        assert elsewhere.status == 409
        somebody_else = await gate.send(data=GOOD, headers=headers, key=RESEND)
        assert somebody_else.json["idm"] != first.json["idm"]
        assert gate.queued() == 2


async def test_a_repetition_that_is_no_longer_acceptable_gets_the_first_answer(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        headers = {"Idempotency-Key": "k"}
        first = await gate.send(data=GOOD, headers=headers)
        gate.context.submitter.settings = SubmissionSettings("")  # reloaded: no home country any more
        again = await gate.send(data=GOOD, headers=headers)
        assert (again.status, again.json) == (200, first.json)
        assert (await gate.send(data=GOOD)).status == 422
        other = await gate.send(data={**GOOD, "message": "other"}, headers=headers)
        assert other.status == 409
        assert gate.queued() == 1


async def test_the_same_key_at_the_same_time_gives_one_message(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        headers = {"Idempotency-Key": "k"}
        answers = await asyncio.gather(*(gate.send(data=GOOD, headers=headers) for _ in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert {answer.json["idm"] for answer in answers} == {answers[0].json["idm"]}
        assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
        assert gate.queued() == 1


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "ñ"])
async def test_a_bad_idempotency_key_is_refused(tmp_path: Path, key: str) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.send(data=GOOD, headers={"Idempotency-Key": key})
        assert (answer.status, answer.fields) == (400, ["Idempotency-Key"])
        assert gate.queued() == 0


async def test_a_thousand_posts_from_64_connections_are_all_kept(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        numbers = iter(range(1000))

        async def worker() -> list[int]:
            got = []
            for number in numbers:
                answer = await gate.send(data={"destination": f"09834{number:04}", "message": f"text {number}"})
                assert answer.status == 200
                got.append(answer.json["idm"])
            return got

        ids = [idm for got in await asyncio.gather(*(worker() for _ in range(64))) for idm in got]
        assert len(set(ids)) == 1000
        assert gate.queued() == 1000
