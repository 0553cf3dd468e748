"""Works off operations on the queue beside the sending: one step, one transaction, then whoever else has something.

What an operation is, and what a step does, is in `spool/operations.py`. Runs from `start()` to `stop()`; an operation
that was under way when the daemon ended goes on at the next start.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection

from gatewayd.errors import RequestError, SpoolError
from gatewayd.router.control import Control
from gatewayd.router.inbound import RETRY_S
from gatewayd.router.target import Kind, parse
from gatewayd.spool.filters import Filter
from gatewayd.spool.lanes import Lane
from gatewayd.spool.operations import DONE, RUNNING, Begun, Operation
from gatewayd.spool.orders import Order
from gatewayd.spool.store import Store

log = logging.getLogger("gatewayd.operations")


class Operations:
    """The operations on the queue of one daemon. `channels` gives the names of those that are configured now."""

    def __init__(self, store: Store, channels: Callable[[], Collection[str]]) -> None:
        self._store = store
        self._channels = channels
        self._more = asyncio.Event()
        self._working: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Go on with what is under way, and with what is ordered from now on."""
        self._more.set()
        self._working = asyncio.create_task(self._run(), name="operations")

    async def stop(self) -> None:
        """Let go after the step at hand."""
        working, self._working = self._working, None
        if working is not None:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)

    def tasks(self) -> list[asyncio.Task[None]]:
        """What must never end by itself while the daemon runs."""
        return [] if self._working is None else [self._working]

    async def begin(self, order: Order, wanted: Filter) -> Begun:
        """Begin an operation. Raises SpoolError."""
        begun = await self._store.operate(order, wanted, self._channels())
        operation = begun.operation
        what = f"{order.action.value} by {order.actor}"
        log.info("operation %d (%s) begins%s", operation.id, what, _so_far(operation))
        if operation.state == RUNNING:
            self._more.set()
        return begun

    async def end(self, operation_id: int, actor: str) -> bool:
        """Stop an operation where it is; False: it is not under way. Raises SpoolError."""
        return await self._store.stop_operation(operation_id, actor)

    async def _run(self) -> None:
        failures = 0
        while True:
            self._more.clear()
            try:
                operation = await self._store.operation_step(self._channels())
            except Exception as error:  # whatever it is, it must not end for ever what operators order
                if not isinstance(error, SpoolError):
                    log.exception("an operation on the queue does not get on")
                await asyncio.sleep(RETRY_S[min(failures, len(RETRY_S) - 1)])
                failures += 1
                continue
            failures = 0
            if operation is None:
                await self._more.wait()
            elif operation.state == DONE:
                what = f"{operation.order.action.value} by {operation.order.actor}"
                log.info("operation %d (%s) is done%s", operation.id, what, _so_far(operation))


def _so_far(operation: Operation) -> str:
    if operation.state == RUNNING and not operation.matched:
        return ""
    return f": {operation.changed} of {operation.matched} messages changed"


def route_of(text: str, control: Control) -> tuple[str, str]:
    """A target that an operator gives messages: its canonical text, and the channel that it ties them to ("": none).

    Raises RequestError for what is none, and for one that no channel of the configuration serves.
    """
    try:
        target = parse(text.strip())
    except ValueError as error:
        raise RequestError("target", str(error)) from None
    if target.dialer:
        raise RequestError("target", "a dialer's messages are routed by their campaign; name channels or groups")
    canonical, pin = target.text, ""
    if target.ports is None and not target.sticky and [tier.kind for tier in target.tiers] == [Kind.CHANNEL]:
        canonical, pin = "any", target.tiers[0].name
    if not control.serving(Lane(0, "class:application", canonical, pin, 0, 0)):
        names = ", ".join(sorted(view.status.name for view in control.channels())[:20]) or "none"
        raise RequestError("target", f"no channel of the configuration serves {text[:60]!r}; there are {names}")
    return canonical, pin
