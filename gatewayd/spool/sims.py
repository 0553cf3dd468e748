"""SIMs as the spool knows them, and which of them belongs in which channel."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import bindparam, func, select, update

from gatewayd.model import SegmentState as S
from gatewayd.model import SimIdentity
from gatewayd.spool import schema
from gatewayd.spool.engine import Statement, set_to
from gatewayd.spool.moves import Owner
from gatewayd.spool.settings import audit
from gatewayd.spool.writer import Tx

RESULT_WITHIN_MS = 780_000  # a modem may still owe the result of a submission: 180 s, then 600 s (gsm-modem.md §3)

_s = schema.segments.c
_sims = schema.sims.c
_channels = schema.channels.c

_SIM = select(_sims.id, _sims.iccid, _sims.imsi, _sims.last_submit_at)
SIM_BY_ICCID = Statement(_SIM.where(_sims.iccid == bindparam("iccid")))
SIM_BY_IMSI = Statement(_SIM.where(_sims.imsi == bindparam("imsi")))
NEW_SIM = Statement(
    schema.sims.insert().returning(_sims.id),
    columns=["iccid", "imsi", "number", "first_seen_at", "last_seen_at", "owner", "owner_epoch"],
)
SEEN_SIM = Statement(
    update(schema.sims)
    .where(_sims.id == bindparam("b_id"))
    .values(set_to("iccid", "imsi", "number", "last_seen_at", "owner", "owner_epoch"))
)
CHANNEL = Statement(select(_channels.sim_id, _channels.seen_sim_id).where(_channels.name == bindparam("name")))
NEW_CHANNEL = Statement(schema.channels.insert(), columns=["name", "sim_id", "paired_at", "seen_sim_id"])
PAIR = Statement(
    update(schema.channels)
    .where(_channels.name == bindparam("b_name"))
    .values(sim_id=bindparam("v_sim_id"), paired_at=bindparam("v_at"), seen_sim_id=bindparam("v_seen"))
)
WITHOUT_RESULT = Statement(
    select(func.max(_s.submitted_at)).where(
        _s.sim_id == bindparam("sim_id"),
        _s.tp_mr.is_(None),
        _s.submitted_at.is_not(None),
        _s.submitted_at >= bindparam("since"),
        _s.state.in_([schema.sqltext(state.value) for state in (S.IN_DOUBT, S.ABANDONED)]),
    )
)
SEEN_OTHER = Statement(
    update(schema.channels).where(_channels.name == bindparam("b_name")).values(seen_sim_id=bindparam("v_seen"))
)


@dataclass(frozen=True, slots=True)
class Pairing:
    """The SIM's id in the spool; `changed`: the channel was paired with another one (`paired`): park it.

    `last_submit_at`: when a submission over this SIM was last begun (epoch ms), None if none ever was. `owes_until`: so
    long the result of one may still come that was given up (epoch ms; 0: none).
    """

    sim_id: int
    changed: bool = False
    paired: SimIdentity = field(default_factory=SimIdentity)
    last_submit_at: int | None = None
    owes_until: int = 0


def see_sim(tx: Tx, channel: str, identity: SimIdentity, number: str, now: int, owner: Owner) -> Pairing:
    """Note the SIM found in a channel: paired at first sight, durably; another one later is a change."""
    by_iccid = tx.one(SIM_BY_ICCID, {"iccid": identity.iccid}) if identity.iccid else None
    by_imsi = tx.one(SIM_BY_IMSI, {"imsi": identity.imsi}) if identity.imsi else None
    row = by_iccid or by_imsi
    values = {"number": number, "last_seen_at": now, "owner": owner.instance, "owner_epoch": owner.epoch}
    if row is None:
        made = tx.one(
            NEW_SIM,
            {"iccid": identity.iccid or None, "imsi": identity.imsi or None, "first_seen_at": now, **values},
        )
        assert made is not None
        sim_id = int(made[0])
    else:
        sim_id = int(row[0])
        # An IMSI known of another row (seen when this SIM's ICCID could not be read) stays there.
        imsi = identity.imsi if by_imsi is None or by_imsi[0] == sim_id else None
        known = {"iccid": identity.iccid or row[1], "imsi": imsi or row[2], **values}
        tx.run(SEEN_SIM, {"b_id": sim_id, **{"v_" + name: value for name, value in known.items()}})
    paired = tx.one(CHANNEL, {"name": channel})
    if paired is None:
        tx.run(NEW_CHANNEL, {"name": channel, "sim_id": sim_id, "paired_at": now, "seen_sim_id": None})
    elif paired[0] is None:  # paused or drained before any SIM was seen in it
        tx.run(PAIR, {"b_name": channel, "v_sim_id": sim_id, "v_at": now, "v_seen": None})
    elif paired[0] != sim_id:
        tx.run(SEEN_OTHER, {"b_name": channel, "v_seen": sim_id})
        return Pairing(sim_id, True, _identity(tx, paired[0]))
    elif paired[1] is not None:
        tx.run(SEEN_OTHER, {"b_name": channel, "v_seen": None})
    owed = tx.one(WITHOUT_RESULT, {"sim_id": sim_id, "since": now - RESULT_WITHIN_MS})
    owes_until = 0 if owed is None or owed[0] is None else min(owed[0], now) + RESULT_WITHIN_MS
    return Pairing(sim_id, last_submit_at=None if row is None else row[3], owes_until=owes_until)


SIM_BY_ID = Statement(select(_sims.iccid, _sims.imsi).where(_sims.id == bindparam("id")))


def _identity(tx: Tx, sim_id: int) -> SimIdentity:
    row = tx.one(SIM_BY_ID, {"id": sim_id})
    return SimIdentity() if row is None else SimIdentity(row[0] or "", row[1] or "")


def accept_sim(tx: Tx, channel: str, actor: str, now: int) -> bool:
    """Pair the channel with the SIM that is in it now. False if there is nothing to accept."""
    row = tx.one(CHANNEL, {"name": channel})
    if row is None or row[1] is None:
        return False
    tx.run(PAIR, {"b_name": channel, "v_sim_id": row[1], "v_at": now, "v_seen": None})
    audit(tx, actor, "channel accept", channel, now)
    return True
