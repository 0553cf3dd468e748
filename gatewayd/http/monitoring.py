"""/healthz: the process lives. /readyz: it can take messages. Neither needs a key; neither says much."""

from __future__ import annotations

import asyncio

from aiohttp import web

from gatewayd.errors import GatewayError
from gatewayd.http.context import CONTEXT, HttpContext
from gatewayd.http.problems import answer_json
from gatewayd.model import ChannelState
from gatewayd.spool import settings
from gatewayd.spool.writer import Tx

PROBE_TIMEOUT_S = 2.0  # a write that takes longer is as good as none for whoever waits for an answer
PROBE_INTERVAL_S = 1.0

_NOTED = "readiness_probe"  # a row of the settings
_NO_STORE = {"Cache-Control": "no-store"}


class Probe:
    """Whether the spool takes a write: found out by writing, once a second at most, however many ask.

    While messages come in, their commits tell it, and nothing is written for it.
    """

    def __init__(self, context: HttpContext) -> None:
        self._context = context
        self._writing: asyncio.Task[bool] | None = None
        self._result = False
        self._valid_until = float("-inf")
        self._commits = -1  # of the writer, when they were last looked at

    async def writable(self) -> bool:
        if self._context.clock.monotonic() < self._valid_until:
            return self._result
        writer = self._context.store.writer
        before, self._commits = self._commits, writer.stats.commits
        if writer.healthy and 0 <= before < self._commits:
            return True
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="readiness probe")
        done, _ = await asyncio.wait({self._writing}, timeout=PROBE_TIMEOUT_S)
        return bool(done) and self._result

    async def _write(self) -> bool:
        """Note the time: it must be a change, for SQLite does not write a page that stays the same."""
        value = str(self._context.clock.now_ms())

        def note(tx: Tx) -> None:
            if tx.run(settings.SET, {"b_name": _NOTED, "v_value": value}) == 0:
                tx.run(settings.NEW_SETTING, {"name": _NOTED, "value": value})

        try:
            writer = self._context.store.writer
            await writer.run(note)
            self._result = True
            self._commits = writer.stats.commits  # this one of ours does not count the next time
        except GatewayError:
            self._result = False
        finally:
            self._valid_until = self._context.clock.monotonic() + PROBE_INTERVAL_S
            self._writing = None
        return self._result


PROBE = web.AppKey("probe", Probe)


async def healthz(request: web.Request) -> web.Response:
    """200 as long as the event loop turns."""
    return answer_json({"status": "ok"}, headers=_NO_STORE)


async def readyz(request: web.Request) -> web.Response:
    """200 while submissions can be kept, else 503 and why."""
    context = request.app[CONTEXT]
    reasons = []
    if context.draining():
        reasons.append("the daemon is stopping")
    elif not await request.app[PROBE].writable():
        writer = context.store.writer
        why = f": {writer.reason}" if writer.reason and not writer.healthy else ""  # else it is only slow
        reasons.append(f"the spool takes no writes{why}")
    channels = context.control.channels()
    ready = sum(view.status.state is ChannelState.READY for view in channels)
    return answer_json(
        {"ready": not reasons, "reasons": reasons, "channels_ready": ready, "channels": len(channels)},
        status=503 if reasons else 200,
        headers=_NO_STORE,
    )
