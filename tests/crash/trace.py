"""The daemon's system calls, watched or made to fail from outside: strace."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

ATTACH_LIMIT_S = 20


@asynccontextmanager
async def traced(pid: int, *arguments: str, into: Path | None = None) -> AsyncIterator[Path]:
    """Watch a process and all its threads; the file of the trace, complete once it is left."""
    output = into or Path(f"/proc/{pid}/cwd").resolve() / "strace.txt"
    strace = await asyncio.create_subprocess_exec(
        "strace", "-f", "-o", str(output), *arguments, "-p", str(pid), stderr=asyncio.subprocess.PIPE
    )
    assert strace.stderr is not None
    try:
        async with asyncio.timeout(ATTACH_LIMIT_S):
            said = await strace.stderr.readline()
        assert b"attached" in said, said
        yield output
    finally:
        if strace.returncode is None:
            strace.send_signal(signal.SIGINT)
        async with asyncio.timeout(ATTACH_LIMIT_S):
            await strace.communicate()
