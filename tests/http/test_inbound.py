"""What came in, over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatewayd.http.schemas_inbound import InboundDetail, InboundPage
from gatewayd.spool.inbound import NewPart
from tests.http.helpers import READ, SEND, Gateway, gateway

URL = "/api/v1/inbound"
ANA, LUIS = "+59898344484", "+59898000001"


async def came(gate: Gateway, raw: str, text: str | None, originator: str = ANA, **fields: object) -> None:
    values = {"listing": "l1", "storage": "SM", "storage_index": 1, "dcs": 0, "user_data": b"", **fields}
    await gate.store.receive(NewPart("sim1", 1, raw, originator=originator, text=text, **values))  # type: ignore[arg-type]


async def test_pages_of_inbound_messages(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        for number in range(5):
            await came(gate, f"A{number}", f"text {number}", ANA if number % 2 == 0 else LUIS)
        seen: list[int] = []
        after: int | None = 0
        while after is not None:
            page = (await gate.get(URL, params={"after": after, "limit": 2})).json
            InboundPage.model_validate(page)
            seen += [item["id"] for item in page["items"]]
            after = page["next"]
        assert seen == [1, 2, 3, 4, 5]
        newest = (await gate.get(URL + "?order=desc&limit=1")).json
        assert (newest["items"][0]["text"], newest["next"]) == ("text 4", 5)
        assert (newest["items"][0]["from"], newest["items"][0]["kind"]) == (ANA, "text")


@pytest.mark.parametrize("given", ["098344484", "%2B598%209834%204484", "+59898344484", "0059898344484"])
async def test_a_number_in_any_spelling_finds_its_messages(tmp_path: Path, given: str) -> None:
    async with gateway(tmp_path) as gate:
        await came(gate, "A1", "from Ana")
        await came(gate, "A2", "from Luis", LUIS)
        answer = await gate.get(f"{URL}?number={given}")
        assert [item["text"] for item in answer.json["items"]] == ["from Ana"], answer.json


async def test_one_with_its_pdus(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        concat = {"concat_ref": 7, "concat_bits": 16, "concat_total": 2}
        await came(gate, "B1", "hello ", concat_seq=1, **concat)
        await came(gate, "B1", "hello ", concat_seq=1, listing="l2", **concat)
        await came(gate, "B2", "world", concat_seq=2, storage_index=2, **concat)
        answer = await gate.get(f"{URL}/1")
        InboundDetail.model_validate(answer.json)
        assert (answer.json["text"], answer.json["parts"], answer.json["partial"]) == ("hello world", 2, False)
        first, second = answer.json["pdus"]
        assert (first["raw"], first["concat"]) == ("B1", {"ref": 7, "bits": 16, "seq": 1, "total": 2})
        assert [again["listing"] for again in first["duplicates"]] == ["l2"]
        assert (second["raw"], second["duplicates"], second["index"]) == ("B2", [], 2)


async def test_what_cannot_be_decoded_is_shown_raw(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        await came(gate, "07911", None, "", error="an odd number of hex digits")
        answer = await gate.get(f"{URL}/1")
        InboundDetail.model_validate(answer.json)
        assert (answer.json["kind"], answer.json["error"]) == ("undecodable", "an odd number of hex digits")
        assert (answer.json["from"], answer.json["text"]) == (None, None)
        assert answer.json["pdus"][0]["raw"] == "07911"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("after=x", "after"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("order=up", "order"),
        ("number=abc", "number"),
        ("number=", "number"),
        ("number=%00", "number"),
        ("limit=1&limit=2", "limit"),
        ("state=1", "state"),
    ],
)
async def test_what_is_not_acceptable_is_named(tmp_path: Path, query: str, field: str) -> None:
    async with gateway(tmp_path) as gate:
        answer = await gate.get(f"{URL}?{query}")
        assert (answer.status, answer.fields) == (422, [field])


async def test_what_is_not_there_and_who_may_look(tmp_path: Path) -> None:
    async with gateway(tmp_path) as gate:
        for given in ("1", "x", "9" * 30, "-1"):
            assert (await gate.get(f"{URL}/{given}")).status == 404
        for path in (URL, f"{URL}/1"):
            assert (await gate.get(path, key=None)).status == 401
            assert (await gate.get(path, key=SEND)).status == 403
        assert (await gate.get(URL, key=READ)).json == {"items": [], "next": None}
