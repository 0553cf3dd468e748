"""The witness: a small file beside the spool that says how far the spool had come.

A spool that an older copy of itself was put in place of does not know what was sent since; sending on from there would
send it again. So the daemon writes down, somewhere else than in the spool, what the spool has committed: never more
than that, for every figure in the file is read in a transaction and written after its commit. At the next start a spool
that knows less than its witness is an older copy (`Known.reached_beyond`), and is treated like a restored one
(restored.py).
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import bindparam, select

from gatewayd import crashpoints
from gatewayd.clock import Clock
from gatewayd.errors import SpoolError
from gatewayd.msglog import Trouble
from gatewayd.spool import schema
from gatewayd.spool.counters import MESSAGE, OUTBOX, RECEIVED
from gatewayd.spool.engine import Statement
from gatewayd.spool.settings import SPOOL_ID, setting
from gatewayd.spool.writer import Tx, Writer

log = logging.getLogger("gatewayd.spool")

EVERY_S = 5.0  # how often it is written while the spool changes
MAX_OCTETS = 10_000  # a larger file is none of ours

EPOCH = Statement(select(schema.instances.c.epoch).where(schema.instances.c.id == bindparam("id")))
COUNTER = Statement(select(schema.counters.c.value).where(schema.counters.c.name == bindparam("name")))


@dataclass(frozen=True, slots=True)
class Known:
    """How far a spool has come: the instance's epoch, the newest ids of messages, inbound messages and events.

    All of them only grow. `at`: when that was read, in epoch ms.
    """

    spool_id: str
    instance: str
    epoch: int
    messages: int
    inbound: int
    events: int
    at: int

    def reached_beyond(self, other: Known) -> bool:
        """Whether `other`, of the same spool, is from before this."""
        if self.spool_id != other.spool_id:
            return False
        mine, theirs = (self.messages, self.inbound, self.events), (other.messages, other.inbound, other.events)
        later_epoch = self.instance == other.instance and self.epoch > other.epoch
        return later_epoch or any(one > another for one, another in zip(mine, theirs, strict=True))


def look(tx: Tx, instance: str, now: int) -> Known:
    """How far the spool has come by this transaction."""
    row = tx.one(EPOCH, {"id": instance})
    messages, inbound, events = (_counter(tx, name) for name in (MESSAGE, RECEIVED, OUTBOX))
    return Known(setting(tx, SPOOL_ID) or "", instance, 0 if row is None else row[0], messages, inbound, events, now)


def _counter(tx: Tx, name: str) -> int:
    row = tx.one(COUNTER, {"name": name})
    return 0 if row is None else int(row[0])


def read(path: Path) -> Known | None:
    """What the file says; None if there is none, or nothing that can be made out (which is said in the log)."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_OCTETS)
    except FileNotFoundError:
        log.info("there is no witness file %s yet: an older copy of the spool would not be noticed", path)
        return None
    except OSError as error:
        log.warning("the witness file %s cannot be read: %s", path, error.strerror)
        return None
    try:
        said = json.loads(text)
        types = {field.name: field.type for field in dataclasses.fields(Known)}
        known = Known(**{name: said[name] for name in types})
        if not all(isinstance(getattr(known, name), str if type_ == "str" else int) for name, type_ in types.items()):
            raise TypeError("a value of another kind")
    except (ValueError, KeyError, TypeError) as error:
        log.warning("the witness file %s is damaged and counts for nothing: %s", path, error)
        return None
    return known


def warn_of_another(known: Known | None, spool_id: str) -> None:
    """Say it if the file was of another spool: somebody has put a new one in its place, or lost the old one."""
    if known is not None and known.spool_id != spool_id:
        log.warning(
            "this spool (%s) is not the one its witness file knew (%s, message %d): if that was not meant, stop, and "
            "look for the old file or a backup",
            spool_id, known.spool_id, known.messages,
        )  # fmt: skip


def write(path: Path, known: Known) -> None:
    """Replace the file: after a crash there is the old one or the new one. Raises OSError."""
    written = path.with_name(path.name + ".new")
    fd = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(known), file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    crashpoints.reach("witness.written")
    written.replace(path)
    crashpoints.reach("witness.renamed")
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Keeper:
    """Keeps the witness file of a running instance up to date, off the event loop."""

    def __init__(self, path: Path, instance: str, writer: Writer, clock: Clock) -> None:
        self._path = path
        self._instance = instance
        self._writer = writer
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._seen = -1  # commits of the writer that the file knows of
        self._trouble = Trouble(log)

    async def start(self) -> None:
        """Write it now, and from now on."""
        await self.note()
        self._task = asyncio.create_task(self._keep(), name="witness")

    async def stop(self) -> None:
        """Write it no more: `note` may follow."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def note(self) -> None:
        """Write what is committed now. Raises SpoolError; that the file cannot be written is only said."""
        known = await self._writer.run(lambda tx: look(tx, self._instance, self._clock.now_ms()))
        self._seen = self._writer.stats.commits
        await self.put(known)

    async def put(self, known: Known) -> None:
        """Write what a transaction that is committed has seen."""
        try:
            await asyncio.to_thread(write, self._path, known)
        except OSError as error:
            said = "the witness file %s cannot be written, an older copy of the spool would not be noticed: %s"
            self._trouble.failed(None, said, self._path, error.strerror)
        else:
            self._trouble.recovered("the witness file is written again")

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            if self._writer.stats.commits == self._seen:
                continue
            try:
                await self.note()
            except SpoolError as error:
                log.debug("the witness waits: %s", error)
