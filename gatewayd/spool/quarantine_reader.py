"""Reading which numbers are in quarantine."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select

from gatewayd.spool import schema
from gatewayd.spool.reader import MAX_PAGE, Reader

_f = schema.number_faults.c


@dataclass(frozen=True, slots=True)
class FaultView:
    """A number that fails. Times in epoch ms. `sims`: ids of the SIMs that tried. `probe`: the message that is tried
    now, None if none is.
    """

    number: str
    failures: int
    sims: tuple[int, ...]
    code: str
    detail: str
    first_at: int
    last_at: int
    until: int
    probe: int | None


_FAULT = tuple(getattr(_f, name) for name in FaultView.__dataclass_fields__)


class QuarantineReader:
    """Reads the list. Raises SpoolError if the spool cannot be read."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def page(self, *, after: str = "", limit: int = 100) -> list[FaultView]:
        """Up to `limit` numbers that were put in quarantine and not heard of since, in the order of their characters.

        They include those whose time is over while nothing was written to them.
        """
        statement = select(*_FAULT).where(_f.number > after, _f.until.is_not(None)).order_by(_f.number)
        async with self._reader.snapshot() as connection:
            rows = (await connection.execute(statement.limit(min(limit, MAX_PAGE + 1)))).mappings()
            return [FaultView(**{**row, "sims": tuple(map(int, row["sims"].split(",")))}) for row in rows]
