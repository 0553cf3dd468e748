"""What waits in the spool besides the lanes: segments in doubt, and events that endpoints were not told yet."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from gatewayd.model import SegmentState
from gatewayd.spool import schema
from gatewayd.spool.events import DEAD, PENDING

_s = schema.segments.c
_d = schema.deliveries.c

# Of a segment in doubt nobody knows the TP-MR: the index on those without one has few rows in it.
_IN_DOUBT = select(func.count()).where(
    _s.tp_mr.is_(None), _s.submitted_at.is_not(None), _s.state == schema.sqltext(SegmentState.IN_DOUBT.value)
)
# By the partial index alone; only the oldest of each endpoint is read as well.
_counted = (
    select(_d.endpoint, func.count().label("pending"), func.min(_d.id).label("first"))
    .where(_d.state == schema.sqltext(PENDING))
    .group_by(_d.endpoint)
    .subquery()
)
_PENDING = select(_counted.c.endpoint, _counted.c.pending, _d.created_at).join_from(
    _counted, schema.deliveries, _d.id == _counted.c.first
)
_DEAD = select(_d.endpoint, func.count()).where(_d.state == schema.sqltext(DEAD)).group_by(_d.endpoint)


@dataclass(frozen=True, slots=True)
class EndpointBacklog:
    """What one endpoint of the outbox has still to be told, since when (epoch ms; None: nothing), and what it never
    will be (dead letters).
    """

    endpoint: str
    pending: int
    oldest_at: int | None
    dead: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """`in_doubt` counts segments whose doubt is not settled."""

    in_doubt: int
    endpoints: tuple[EndpointBacklog, ...]


async def read(connection: AsyncConnection) -> Backlog:
    """Count it all, by indexes."""
    in_doubt = (await connection.execute(_IN_DOUBT)).scalar_one()
    pending = {row[0]: (row[1], row[2]) for row in await connection.execute(_PENDING)}
    dead = {row[0]: row[1] for row in await connection.execute(_DEAD)}
    return Backlog(
        in_doubt,
        tuple(
            EndpointBacklog(
                endpoint,
                pending[endpoint][0] if endpoint in pending else 0,
                pending[endpoint][1] if endpoint in pending else None,
                dead.get(endpoint, 0),
            )
            for endpoint in sorted({*pending, *dead})
        ),
    )
