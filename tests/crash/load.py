"""What goes on around a daemon that dies again and again: applications, subscribers, an operator.

Each retries until it is answered, as its own kind does, and writes into the books what it was told.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from gatewayd.modems.simulator.process import SimulatorProcess
from tests.crash.books import Books, Sent
from tests.daemon import DaemonProcess

CLIENTS = 3
MOST_SENT, MOST_WRITTEN, MOST_ORDERED = 60, 8, 8  # in one life
MOST_SLOW = 6  # in all lives: their dialer takes its time
LONG = "a text that takes two segments, for one of them may be in doubt while the other was never sent " * 2
NEVER = "2099-01-01T00:00:00Z"

TURN, SLOW, DOOMED, KEPT, FREED = "spring", "slow", "doomed", "kept", "freed"
"""Campaigns: the first two have a dialer each, the others are what the operator deals with."""

ORDERS: tuple[dict[str, Any], ...] = (
    {"action": "hold", "filter": {"campaign": FREED}},
    {"action": "cancel", "filter": {"campaign": DOOMED}},
    {"action": "hold", "filter": {"campaign": KEPT}},
    {"action": "priority", "priority": 7, "filter": {"campaign": FREED}},
    {"action": "release", "filter": {"campaign": FREED, "held": "operator"}},
)
_KINDS: tuple[Mapping[str, str], ...] = (
    {},
    {},
    {"class": "campaign", "campaign": TURN},
    {"class": "campaign", "campaign": TURN},
    {"class": "campaign", "campaign": TURN},
    {"campaign": DOOMED},
    {"campaign": KEPT},
    {"campaign": FREED},
    {"class": "agent"},  # its route prefers the SIM whose quota is soon spent
    {},
)


class HarnessError(Exception):
    """The run proves nothing: what was to happen did not."""


class Load:
    """All of it, over all lives of one rig's daemon. `begin` and `cease` tell it whom to ask."""

    def __init__(self, directory: Path, books: Books, chance: random.Random) -> None:
        self._directory = directory
        self._books = books
        self._chance = chance
        self._numbers = itertools.count()
        self._slow = 0
        self._life = 0
        self._sent = self._written = self._ordered = 0  # in this life
        self._api: DaemonProcess | None = None
        self._reached = asyncio.Event()  # somebody can be asked
        self._ending = False

    def new_life(self, life: int) -> None:
        self._life = life
        self._sent = self._written = self._ordered = 0

    def begin(self, api: DaemonProcess) -> None:
        self._api = api
        self._reached.set()

    def cease(self) -> None:
        self._reached.clear()

    def end(self) -> None:
        """Begin nothing more; what is under way goes on until it is answered."""
        self._ending = True

    # Applications.

    async def client(self, session: aiohttp.ClientSession) -> None:
        """An application: one submission after the other, each retried until it is answered."""
        while not self._ending:
            await self._reached.wait()
            if self._sent >= MOST_SENT:
                await asyncio.sleep(0.02)
                continue
            self._sent += 1
            await self._submit(session, self._next())

    def _next(self) -> Sent:
        n = next(self._numbers)
        to = f"+5989{n // 1000 % 10}{n % 1000:03}577"
        text = f"{n}: {LONG}" if n % 7 == 0 else f"out {n}"
        fields: Mapping[str, str] = _KINDS[n % len(_KINDS)]
        if self._sent == 1 and self._slow < MOST_SLOW:
            self._slow += 1
            fields = {"class": "campaign", "campaign": SLOW}
        if fields.get("campaign") in {DOOMED, KEPT} and n // len(_KINDS) % 2:
            fields = {**fields, "not_before": NEVER}  # so that there is always something that waits
        return Sent(self._life, to, text, fields)

    async def _submit(self, session: aiohttp.ClientSession, sent: Sent) -> None:
        books, to = self._books, sent.to
        books.submitted[to] = sent
        status, answer = await self._ask(session, sent, to)
        if status >= 300:
            raise HarnessError(f"{sent}: {status}, {answer}")
        books.answered[to] = int(answer["idm"])
        if sum(map(int, to[1:])) % 7 == 0:
            _, again = await self._ask(session, sent, to)
            if again.get("idm") != books.answered[to]:
                books.contradicted.append(f"{to} is {books.answered[to]}, and then {again}")
        if sum(map(int, to[1:])) % 11 == 0 and sent.guarded:
            status, again = await self._ask(session, sent, f"{to}-by-mistake")
            if (status, again.get("duplicate_of")) != (409, books.answered[to]):
                books.contradicted.append(f"{to} was taken twice: {status}, {again}")

    async def _ask(self, session: aiohttp.ClientSession, sent: Sent, key: str) -> tuple[int, dict[str, Any]]:
        """Ask until there is an answer other than 503."""
        while True:
            await self._reached.wait()
            assert self._api is not None
            base = f"http://{self._api.address}"
            try:
                async with (
                    asyncio.timeout(10),
                    session.post(**sent.request(base), headers={"Idempotency-Key": key}) as got,
                ):
                    if got.status != 503:
                        return got.status, await got.json(content_type=None)
            except (aiohttp.ClientError, OSError, ValueError):  # it died before, or while, it answered
                await asyncio.sleep(0.01)

    # Subscribers.

    async def subscribers(self, sim: SimulatorProcess, modems: int) -> None:
        """They write, whether anybody listens or not."""
        n = 0
        while not self._ending:
            if self._written < MOST_WRITTEN:
                self._written += 1
                sender = f"+5989{n:05}88"
                text = f"in {n} " + ("largo, con ñ y 🙂 " * 8 if n % 3 == 0 else "")
                self._books.written[sender] = (self._life, text)
                await sim.control.call({"do": "inbound", "modem": n % modems, "from": sender, "text": text})
                n += 1
            await asyncio.sleep(self._chance.uniform(0.01, 0.1))

    # An operator.

    async def operator(self) -> None:
        """One order after the other, on whatever waits just then. What is not answered is not repeated."""
        for order in itertools.cycle(ORDERS):
            await self._reached.wait()
            while self._ordered >= MOST_ORDERED and not self._ending:
                await asyncio.sleep(0.02)
            if self._ending:
                return
            self._ordered += 1
            await self.order(order)
            await asyncio.sleep(self._chance.uniform(0.01, 0.1))

    async def order(self, order: Mapping[str, Any]) -> bool:
        """Whether it was answered; then it is in the books."""
        connector = aiohttp.UnixConnector(str(self._directory / "control.sock"))
        try:
            async with (
                asyncio.timeout(10),
                aiohttp.ClientSession(connector=connector) as session,
                session.post("http://gatewayd/api/v1/operations", json={**order, "reason": "the rig"}) as got,
            ):
                answer = await got.json(content_type=None)
        except (aiohttp.ClientError, OSError, ValueError):
            return False
        if got.status == 503:
            return False
        if got.status not in {200, 202}:
            raise HarnessError(f"{order}: {got.status}, {answer}")
        self._books.ordered[int(answer["operation"]["id"])] = order["action"]
        return True

    async def last_orders(self) -> None:
        """What was doomed is cancelled, what is to be kept is held, all else goes out."""
        for order in (ORDERS[1], ORDERS[2], ORDERS[4]):
            if not await self.order(order):
                raise HarnessError(f"the last daemon does not take {order}")
