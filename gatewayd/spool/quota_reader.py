"""Reading what SIMs have sent, for the API and the command line."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from gatewayd.spool import schema
from gatewayd.spool.engine import Row
from gatewayd.spool.quota import USAGE
from gatewayd.spool.reader import Reader, SimView

_sims = schema.sims.c
_channels = schema.channels.c
_SIM = (
    _sims.id, _sims.iccid, _sims.imsi, _sims.number, _channels.name.label("channel"), _sims.first_seen_at,
    _sims.last_seen_at, _sims.last_submit_at,
)  # fmt: skip
_ALL = (
    select(*_SIM, *USAGE)
    .select_from(schema.sims)
    .outerjoin(schema.channels, _channels.sim_id == _sims.id)
    .outerjoin(schema.sim_usage, schema.sim_usage.c.sim_id == _sims.id)
    .order_by(_sims.id, _channels.paired_at)
)


@dataclass(frozen=True, slots=True)
class SimUsage:
    """A SIM, and its row of usage as `quota.left_of` takes it (None: it has never sent).

    `sim.channel` is the one it is paired with; of several, the last.
    """

    sim: SimView
    usage: Row | None


class QuotaReader:
    """Reads counts. Every method raises SpoolError if the spool cannot be read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def sims(self) -> list[SimUsage]:
        """All SIMs that were ever seen, in the order of their ids. There are never more than people can carry."""
        found: dict[int, SimUsage] = {}
        async with self._reader.snapshot() as connection:
            for row in await connection.execute(_ALL):
                usage = tuple(row[len(_SIM) :])
                found[row[0]] = SimUsage(SimView(*row[: len(_SIM)]), None if usage[0] is None else usage)
        return list(found.values())
