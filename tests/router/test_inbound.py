"""What comes in is kept and acknowledged, whatever it is."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from gatewayd.errors import SpoolError
from gatewayd.model import StoredPdu
from gatewayd.modems.channel import Received
from gatewayd.router import inbound
from gatewayd.router.inbound import Inbound
from gatewayd.spool import schema
from gatewayd.spool.store import Store
from tests.spool.helpers import Spool, open_spool

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
