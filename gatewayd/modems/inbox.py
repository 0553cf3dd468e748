"""The memories of a modem: reading what lies in them, deleting what is safe elsewhere.

AT+CMGL, +CMGR and +CMGD work on the selected memory, so selecting and using it is one step under a lock of its own; the
port's lock is taken per command, and a submission waits for one command at most.
Source: spec/gsm-modem.md (sheet) §4; 3GPP TS 27.005 §3.4, §3.2.2.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from gatewayd.errors import ChannelLost, DecodeError
from gatewayd.model import StoredPdu
from gatewayd.modems.at import commands
from gatewayd.modems.at.answers import cpms, is_gone, number
from gatewayd.modems.at.engine import Info
from gatewayd.modems.at.results import Kind
from gatewayd.modems.bringup import Equipment
from gatewayd.modems.client import AtClient
from gatewayd.modems.pdu import check_length
from gatewayd.msglog import masked_line

logger = logging.getLogger("gatewayd.channel")

MAX_INDEX = 300  # of a store read index by index; the largest have 255 places

Deliver = Callable[[StoredPdu], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Entry:
    """One message of a listing. `length` is the TPDU length announced, `raw` the PDU in hex."""

    index: int
    length: int | None
    raw: str


class Inbox:
    """What lies in the modem. `listing` makes ids of readings that no other session makes again."""

    def __init__(self, client: AtClient, equipment: Equipment, name: str, listing: Callable[[], str]) -> None:
        self._client = client
        self._equipment = equipment
        self._name = name
        self._listing = listing
        self._lock = asyncio.Lock()
        self._stores = list(equipment.stores)
        self._selected = equipment.store
        self._by_index = equipment.profile.list_by_index
        self._undeleted: dict[tuple[str, int], str] = {}

    async def read_all(self, deliver: Deliver) -> int:
        """Read every memory and give each message to `deliver`, one after the other. Returns how many there were.

        Raises ChannelLost. What is still there because it could not be deleted is not delivered again.
        """
        listing = self._listing()
        found = 0
        for store in tuple(self._stores):
            async with self._lock:
                entries = await self._list() if await self._select(store) else []
            for entry in entries:
                if self._undeleted.get((store, entry.index)) == entry.raw:
                    await self.delete(store, entry.index, entry.raw)
                    continue
                found += 1
                await deliver(StoredPdu(entry.raw, entry.length, listing, store, entry.index))
        async with self._lock:
            await self._select(self._equipment.store)
        return found

    async def delete(self, store: str, index: int, raw: str) -> None:
        """Delete one message that is on disk. If the modem will not, say so and try again at the next reading."""
        place = (store, index)
        async with self._lock:
            result = None
            if await self._select(store):
                result = (await self._client.execute(commands.delete(index))).result
        if result is not None and (result.ok or is_gone(result)):
            self._undeleted.pop(place, None)
        else:
            level = logging.DEBUG if place in self._undeleted else logging.WARNING
            logger.log(level, "%s: message %d in %s cannot be deleted: %s", self._name, index, store, result)
            self._undeleted[place] = raw

    async def _select(self, store: str) -> bool:
        """Make `store` the one that is listed and deleted from; what comes in goes where it went."""
        if store == self._selected:
            return True
        text = cpms(store, self._equipment.store, self._equipment.cpms_parameters)
        response = await self._client.execute(commands.setting(text))
        if response.ok:
            self._selected = store
            return True
        if response.result.kind is not Kind.TIMEOUT and store != self._equipment.store and store in self._stores:
            logger.debug("%s: the memory %s cannot be read: %s", self._name, store, response.result)
            self._stores.remove(store)
        return False

    async def _list(self) -> list[Entry]:
        if not self._by_index:
            response = await self._client.execute(commands.LIST_ALL)
            if response.ok or response.result.kind is Kind.TIMEOUT:  # what came before the silence is good
                return [entry for info in response.lines if (entry := await self._entry(info)) is not None]
            if is_gone(response.result):  # an empty store, for some
                return []
            if not (response.result.is_(Kind.CMS, 303) or response.result.kind is Kind.ERROR):
                logger.debug("%s: AT+CMGL=4: %s", self._name, response.result)
                return []
            self._by_index = True
        return await self._list_by_index()

    async def _list_by_index(self) -> list[Entry]:
        """Read place by place, for modems that list in text vocabulary only (CMS 303); the first is 0 or 1."""
        response = await self._client.execute(commands.STORES_QUERY)
        match = re.search(r"(\d+)\s*,\s*(\d+)", response.text, re.ASCII)
        if not response.ok or match is None:
            return []
        used, total = int(match[1]), int(match[2])
        entries: list[Entry] = []
        for index in range(min(total, MAX_INDEX) + 1):
            if len(entries) >= used:
                break
            if (entry := await self._read(index)) is not None:
                entries.append(entry)
        return entries

    async def _entry(self, info: Info) -> Entry | None:
        """An entry of a listing; read again by itself where its length is wrong."""
        fields = info.line.partition(":")[2].split(",")
        index = number(fields[0])
        if len(fields) < 2 or index is None:
            logger.warning("%s: a line of AT+CMGL that cannot be read: %s", self._name, masked_line(info.line))
            return None
        self._check_pdu_mode(fields[1])
        entry = Entry(index, number(fields[-1]) if len(fields) > 2 else None, info.body)
        if _is_whole(entry):
            return entry
        again = await self._read(entry.index)
        return again or (entry if entry.raw else None)

    async def _read(self, index: int) -> Entry | None:
        response = await self._client.execute(commands.read(index))
        if not response.lines or not response.lines[0].body:
            return None
        fields = response.text.split(",")
        self._check_pdu_mode(fields[0])
        return Entry(index, number(fields[-1]) if len(fields) > 1 else None, response.lines[0].body)

    def _check_pdu_mode(self, stat: str) -> None:
        """In text mode <stat> is a word. To take a text for a PDU would lose its sender."""
        if number(stat) is None:
            self._client.give_up("the modem left PDU mode by itself: it restarted")
            raise ChannelLost(self._client.lost or "")


def _is_whole(entry: Entry) -> bool:
    if not entry.raw:
        return False
    try:
        check_length(entry.raw, entry.length)
    except DecodeError:
        return False
    return True
