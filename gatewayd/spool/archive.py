"""The archive: what retention deletes is first written to files, one for each UTC day, JSON Lines in gzip.

Each append is a gzip member of its own and on disk before anything is deleted, so after a crash a record may be there
twice (with the same `spool` and `id`), never be missing. A member that a crash cut in two is removed before the next
is appended: nothing of it was deleted from the spool yet. For one thread at a time.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import logging
import os
import zlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from gatewayd import crashpoints
from gatewayd.spool.witness import sync_folder

log = logging.getLogger("gatewayd.spool")

CHUNK_OCTETS = 1 << 20
_GZIP = 16 + zlib.MAX_WBITS


class Archive:
    """Files in one folder, which has to be there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._sound: dict[Path, int] = {}  # sizes of files that end with a whole member

    def append(self, kind: str, records: Iterable[tuple[int, Mapping[str, Any]]]) -> None:
        """Write records of a kind, each with the epoch ms that says its day, durably. Raises OSError."""
        days: dict[str, list[Mapping[str, Any]]] = {}
        for at, record in records:
            days.setdefault(day_of(at), []).append(record)
        for day, of_day in days.items():
            lines = "".join(json.dumps(record, default=_plain, separators=(",", ":")) + "\n" for record in of_day)
            self._append(self.folder / f"{kind}-{day}.jsonl.gz", gzip.compress(lines.encode(), mtime=0))

    def _append(self, path: Path, member: bytes) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        with os.fdopen(fd, "r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            size = file.seek(0, os.SEEK_END)
            if self._sound.pop(path, None) != size:
                end = whole_members(file)
                if end != size:
                    log.warning("%s: %d octets that a crash cut off are removed", path, size - end)
                    file.truncate(end)
                size = end
            file.seek(size)
            try:
                if crashpoints.is_armed("archive.inside_member"):
                    _write_all(file, member[: len(member) // 2])
                    crashpoints.reach("archive.inside_member")
                    file.seek(size)
                _write_all(file, member)
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
        if size == 0:
            sync_folder(self.folder)
        self._sound[path] = size + len(member)


def day_of(at: int) -> str:
    """The UTC day of an epoch ms: "2026-11-28"."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d")


def whole_members(file: BinaryIO) -> int:
    """How many octets at the beginning of a gzip file are whole members."""
    file.seek(0)
    end = offset = 0
    member = zlib.decompressobj(_GZIP)
    while chunk := file.read(CHUNK_OCTETS):
        offset += len(chunk)
        while chunk:
            try:
                member.decompress(chunk)
            except zlib.error:
                return end
            if not member.eof:
                break
            chunk = member.unused_data
            end = offset - len(chunk)
            member = zlib.decompressobj(_GZIP)
    return end


def _write_all(file: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def _plain(value: object) -> str:
    """What JSON does not have: octets, as hex."""
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    raise TypeError(f"{type(value).__name__} cannot be archived")
