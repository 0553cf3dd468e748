"""Keeps what came of deliveries: those of a moment share a commit, and a full disk loses none."""

from __future__ import annotations

import asyncio
import logging

from gatewayd.errors import SpoolError
from gatewayd.spool.deliveries import Told, record
from gatewayd.spool.writer import Writer

log = logging.getLogger("gatewayd.webhook")

AGAIN_S = 1.0  # after the spool took no write
MOST = 500  # outcomes in one operation


class Recorder:
    """`keep` outcomes until `stop`. What is not on disk by then is told again after the next start."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._waiting: list[tuple[Told, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None

    def keep(self, told: Told) -> asyncio.Future[None]:
        """Write an outcome; done once it is on disk. While the spool takes no writes it is tried again and again.

        Whoever reads what is pending waits for it first, or the endpoint would be told the same again and again.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((told, future))
        if self._task is None:
            self._task = asyncio.create_task(self._write(), name="outbox recorder")
        return future

    async def stop(self, timeout_s: float) -> None:
        """Write what there is, in bounded time."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=timeout_s)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _write(self) -> None:
        try:
            while self._waiting:
                batch = self._waiting[:MOST]
                told = [each for each, _ in batch]
                try:
                    await self._writer.run(lambda tx, told=told: record(tx, told), rows=len(told))  # type: ignore[misc]
                except SpoolError as error:
                    log.debug("what came of %d deliveries is not kept yet: %s", len(told), error)
                    await asyncio.sleep(AGAIN_S)
                    continue
                del self._waiting[: len(batch)]
                for _, future in batch:
                    if not future.done():
                        future.set_result(None)
        finally:
            self._task = None
