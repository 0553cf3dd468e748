"""What comes in from a channel: on disk first, acknowledged after."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from gatewayd import crashpoints, metrics, msglog
from gatewayd.errors import DecodeError, SpoolError
from gatewayd.model import StoredPdu
from gatewayd.modems.channel import Received
from gatewayd.modems.pdu import Deliver, StatusReport, check_length, decode_pdu, status_text, verdict
from gatewayd.spool.inbound import HandedOver, NewPart
from gatewayd.spool.reports import NewReport
from gatewayd.spool.store import Store

log = logging.getLogger("gatewayd.inbound")

T = TypeVar("T")

RETRY_S = (0.1, 0.5, 2.0, 5.0)  # between tries while the spool takes no writes


class Inbound:
    """Puts what a channel received into the spool, then lets the channel forget it."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def __call__(self, channel: str, sim_id: int, received: Received) -> None:
        """Keep one PDU and acknowledge it. Raises ChannelLost if the device is gone before the acknowledgement."""
        pdu = received.pdu
        try:
            await self._take(channel, sim_id, pdu)
        except Exception as error:  # refused, it would lie on the SIM, and end one session after the other
            log.exception("channel %s: a PDU cannot be dealt with; it is kept raw, and shown as undecodable", channel)
            await self._keep(_raw_part(channel, sim_id, replace(pdu, index=None), f"internal error: {error!r}"))
        await received.ack()
        crashpoints.reach("inbound.forgotten")

    async def _take(self, channel: str, sim_id: int, pdu: StoredPdu) -> None:
        try:
            check_length(pdu.raw, pdu.length)
            _, tpdu = decode_pdu(pdu.raw)
        except DecodeError as error:
            await self._keep(_raw_part(channel, sim_id, pdu, str(error)))
        else:
            if isinstance(tpdu, StatusReport):
                await self._report(channel, sim_id, pdu, tpdu)
            elif isinstance(tpdu, Deliver):
                await self._keep(_part(channel, sim_id, pdu, tpdu))
            else:
                await self._keep(_raw_part(channel, sim_id, pdu, "an SMS-SUBMIT: somebody's draft on the SIM"))

    async def _report(self, channel: str, sim_id: int, pdu: StoredPdu, tpdu: StatusReport) -> None:
        said = verdict(tpdu.status)
        report = NewReport(
            channel=channel,
            sim_id=sim_id,
            tp_mr=tpdu.mr,
            recipient=tpdu.recipient.text,
            tp_status=tpdu.status,
            verdict=said,
            status_text=status_text(tpdu.status),
            scts_ms=tpdu.scts.epoch_ms if tpdu.scts is not None else None,
            discharged_at=tpdu.discharge.epoch_ms if tpdu.discharge is not None else None,
            raw=pdu.raw,
            listing=pdu.listing,
        )
        crashpoints.reach("report.received")
        matched = await persistently(lambda: self._store.report(report))
        crashpoints.reach("report.kept")
        metrics.status_report(said, matched=matched.message_id is not None, duplicate=matched.duplicate)
        if not matched.duplicate:
            msglog.reported(matched.message_id, matched.seq, channel, said.value, tpdu.status)

    async def _keep(self, part: NewPart) -> None:
        crashpoints.reach("inbound.received")
        kept = await persistently(lambda: self._store.receive(part))
        crashpoints.reach("inbound.kept")
        msglog.received(kept.id, part.channel, part.originator, kept.duplicate_of, part.error)
        if kept.duplicate_of is not None:
            metrics.inbound_duplicate(part.channel)
        if kept.handed_over is not None:
            told(kept.handed_over)


def told(handed_over: HandedOver) -> None:
    """Log and count a message that was handed over, and what it changed."""
    message, changed = handed_over.message, handed_over.changed
    metrics.inbound(message.channel, message.kind, partial=message.partial)
    intent = handed_over.ruling.intent
    msglog.inbound(
        handed_over.id, message.channel, message.originator, message.parts, message.partial, message.kind, intent
    )
    if changed is not None and changed.changed:
        msglog.opted(changed.number, changed.state.value, "keyword", changed.blocked, handed_over.reply_id)


async def persistently(write: Callable[[], Awaitable[T]]) -> T:
    """Write to the spool; while it takes no writes, try again. What came in has no other place to wait."""
    tries = 0
    while True:
        try:
            return await write()
        except SpoolError as error:
            log.debug("not on disk yet: %s", error)
            await asyncio.sleep(RETRY_S[min(tries, len(RETRY_S) - 1)])
            tries += 1


def _raw_part(channel: str, sim_id: int, pdu: StoredPdu, error: str) -> NewPart:
    return NewPart(channel, sim_id, pdu.raw, pdu.listing, pdu.storage, pdu.index, error=error)


def _part(channel: str, sim_id: int, pdu: StoredPdu, tpdu: Deliver) -> NewPart:
    data = tpdu.user_data
    concat = data.concat
    return NewPart(
        channel,
        sim_id,
        pdu.raw,
        pdu.listing,
        pdu.storage,
        pdu.index,
        originator=tpdu.originator.text,
        originator_ton=tpdu.originator.ton,
        sent_at=tpdu.scts.epoch_ms if tpdu.scts is not None else None,
        pid=tpdu.pid,
        dcs=data.dcs,
        concat_ref=None if concat is None else concat.ref,
        concat_bits=None if concat is None else concat.bits,
        concat_total=None if concat is None else concat.total,
        concat_seq=None if concat is None else concat.seq,
        text=data.text,
        user_data=data.data,
    )
