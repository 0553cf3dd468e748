"""What comes in is kept and acknowledged, whatever it is."""

from __future__ import annotations

import logging

import pytest
from sqlalchemy import func, select

from gatewayd.errors import SpoolError
from gatewayd.model import StoredPdu
from gatewayd.modems.channel import Received
from gatewayd.modems.pdu import Address, Alphabet, Concat, Submit, UserData
from gatewayd.router import inbound
from gatewayd.router.inbound import Inbound
from gatewayd.spool import schema
from gatewayd.spool.store import Store
from tests.spool.helpers import Sim, Spool, intake, message, open_spool, pdu, pdus

PARTS = schema.inbound_parts.c


async def receive(spool: Spool, raw: str, index: int | None = 1) -> list[bool]:
    """Deliver a PDU; whether it was on disk when it was acknowledged."""
    acknowledged: list[bool] = []

    async def ack() -> None:
        acknowledged.append(bool(await spool.rows(select(PARTS.id))))

    await Inbound(spool.store)("m0", 1, Received(StoredPdu(raw, None, "l1", "SM", index), ack))
    return acknowledged


@pytest.mark.parametrize("raw", ["", "zz", "07\0AB", "00", "0791959899999999", "FF" * 300])
async def test_what_is_no_pdu_is_kept_raw(database_url: str, raw: str) -> None:
    """Promise 3."""
    async with open_spool(database_url) as spool:
        assert await receive(spool, raw) == [True]
        assert (await spool.rows(select(PARTS.error)))[0][0]


async def test_a_bug_in_the_codec_or_an_absurd_place_keeps_the_pdu_raw(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_spool(database_url) as spool:
        if "postgresql" in database_url:  # its INTEGER ends at 2^31
            assert await receive(spool, "zz", index=10**12) == [True]

        def buggy(raw: str) -> None:
            raise IndexError("a bug")

        monkeypatch.setattr(inbound, "decode_pdu", buggy)
        assert await receive(spool, "00AA") == [True]
        errors = [error for (error,) in await spool.rows(select(PARTS.error).order_by(PARTS.id))]
        assert errors[-1] == "internal error: IndexError('a bug')"
        assert {"00AA"} <= {raw for (raw,) in await spool.rows(select(PARTS.raw))}


async def test_a_spool_that_takes_no_writes_is_waited_for(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbound, "RETRY_S", (0.0,))
    keep, failures = Store.receive, [SpoolError("locked"), SpoolError("locked")]

    async def locked(store: Store, part: object) -> object:
        if failures:
            raise failures.pop()
        return await keep(store, part)  # type: ignore[arg-type]

    monkeypatch.setattr(Store, "receive", locked)
    async with open_spool(database_url) as spool:
        assert await receive(spool, "zz") == [True]
        assert len(await spool.rows(select(PARTS.id))) == 1


async def test_a_long_stop_is_acknowledged_part_by_part_and_said_once(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for each part, one for the message, one for what it changed; no text and no number of the contact."""
    caplog.set_level(logging.INFO)
    async with open_spool(database_url, intake=intake()) as spool:
        await spool.accept(message())
        halves = [
            UserData(Alphabet.GSM7, text, udh=(Concat(3, 2, n, 8).element(),)) for n, text in ((1, "ST"), (2, "OP"))
        ]
        caplog.clear()
        assert await receive(spool, pdu(halves[0]), 1) == [True]
        assert await receive(spool, pdu(halves[1]), 2) == [True]
        events = [vars(record)["event"] for record in caplog.records if "event" in vars(record)]
        assert events == ["part.received", "part.received", "inbound.received", "optout.changed"]
        assert await spool.rows(select(schema.messages.c.state).order_by(schema.messages.c.id)) == [(3,), (1,)]
        caplog.clear()
        await Sim(spool, name="again").read(*map(pdu, halves))
        assert await spool.rows(select(func.count()).select_from(schema.optout_events)) == [(1,)]
    assert "59898344484" not in caplog.text


async def test_a_draft_on_the_sim_opts_nobody_out_and_is_shown(database_url: str) -> None:
    """Somebody typed STOP into a telephone once, with this SIM in it."""
    async with open_spool(database_url, intake=intake()) as spool:
        draft = "00" + Submit(Address.to_send("+59898344484"), UserData(Alphabet.GSM7, "STOP")).encode().hex()
        assert await receive(spool, draft) == [True]
        ((error,),) = await spool.rows(select(PARTS.error))
        assert "SUBMIT" in error
        i = schema.inbound_messages.c
        assert await spool.rows(select(i.kind, i.intent, i.number)) == [("undecodable", "", "")]
        assert await spool.rows(select(schema.optouts.c.number)) == []


async def test_the_case_of_hex_digits_makes_no_second_message(database_url: str) -> None:
    async with open_spool(database_url, intake=intake()) as spool:
        (raw,) = pdus("hola")
        await Sim(spool).read(raw)
        await Sim(spool, name="other").read(raw.lower())
        assert await spool.rows(select(func.count()).select_from(schema.inbound_messages)) == [(1,)]
