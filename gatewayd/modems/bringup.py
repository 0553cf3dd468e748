"""From an open port to a modem that can send: the steps of spec/gsm-modem.md (sheet) §2, in its order.

What each step tolerates is data (`Tolerance`); what a vendor does its own way is in the profile. No step sleeps unless
the modem said that it is busy.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass, field
from enum import Enum

from gatewayd.errors import ChannelLost, ChannelParked
from gatewayd.model import SimIdentity
from gatewayd.modems.at import commands
from gatewayd.modems.at.answers import (
    cpms,
    digits,
    imei,
    is_busy,
    notifies,
    number,
    parse_iccid,
    parse_stores,
    swap,
    unprefixed,
)
from gatewayd.modems.at.commands import Command
from gatewayd.modems.at.profiles import GENERIC, Profile, profile_for
from gatewayd.modems.at.results import Kind, Result
from gatewayd.modems.channel import AdmitSim
from gatewayd.modems.client import AtClient, Response

logger = logging.getLogger("gatewayd.channel")

NETWORKS = ("+CREG", "+CGREG", "+CEREG")
_DIRECT_CNMI = ("2,2,0,1,0", "1,2,0,1,0")


class Tolerance(Enum):
    """What a failed step means."""

    IGNORE = "ignore"  # nothing: the modem lives without it
    RETRY = "retry"  # try again while the SIM wakes up, then give the session up


@dataclass(frozen=True, slots=True)
class Step:
    """One command whose answer nobody reads."""

    command: Command
    tolerance: Tolerance = Tolerance.IGNORE


LINE_STEPS = (
    Step(commands.RESET),  # some need the PIN first
    Step(commands.FORMAT),
    Step(commands.NO_ECHO),  # again: some refuse the combined form; echoes are dropped anyway
    Step(commands.setting("AT+CMEE=1", commands.PLAIN)),
)
TEXT_STEPS = (
    Step(commands.setting("AT+COPS=3,2", commands.OPERATOR)),
    Step(commands.setting('AT+CSCS="GSM"')),
)
PDU_MODE_STEP = Step(commands.PDU_MODE, Tolerance.RETRY)  # without it everything else is in vain


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for a SIM that wakes up, in seconds. Source: sheet §1, §2.

    `retry_s` lies between two tries; `tries` for a setting; `sim_s` for +CPIN to answer at all.
    """

    retry_s: float = 1.0
    tries: int = 10
    sim_s: float = 60.0
    plain_errors: int = 3  # of AT+CPIN?, before they mean that there is no SIM


@dataclass(slots=True)
class Equipment:
    """What bring-up found out. `registration` holds the last <stat> of each network query that works."""

    manufacturer: str = ""
    model: str = ""
    revision: str = ""
    imei: str = ""
    profile: Profile = GENERIC
    sim: SimIdentity = field(default_factory=SimIdentity)
    smsc: str = ""
    operator: str = ""
    registration: dict[str, int] = field(default_factory=dict)
    stores: tuple[str, ...] = ()  # all that can be read; the first is the one messages are kept in
    cpms_parameters: int = 0  # how many AT+CPMS takes; 0: the modem has no such command
    cnmi: str = ""  # the accepted value; "": no notifications, only polling
    acknowledge: bool = False  # each +CMT and +CDS has to be acknowledged

    @property
    def store(self) -> str:
        return self.stores[0] if self.stores else ""


class BringUp:
    """One bring-up over one client.

    `networks` are the registration queries to use, as "+CREG". `direct`: have messages handed over at once (+CMT) and
    acknowledge each (AT+CNMA), for modems whose store is broken; what refuses it gets the stored way.
    """

    def __init__(
        self,
        client: AtClient,
        name: str,
        *,
        smsc: str = "",
        networks: tuple[str, ...] = NETWORKS,
        direct: bool = False,
        patience: Patience | None = None,
    ) -> None:
        self.equipment = Equipment()
        self._client = client
        self._name = name
        self._smsc = smsc
        self._networks = networks
        self._direct = direct
        self._patience = patience or Patience()

    async def run(self, admit_sim: AdmitSim) -> Equipment:
        """All steps. Raises ChannelLost (try again) or ChannelParked (a person has to do something)."""
        await self._client.start()
        for step in LINE_STEPS:
            await self._step(step)
        await self._identify()
        await self._quieten()
        await self._radio_on()
        await self._await_sim()
        await self._identify_sim()
        reason = await admit_sim(self.equipment.sim)
        if reason:
            raise ChannelParked(reason)
        await self._watch_networks()
        for step in TEXT_STEPS:
            await self._step(step)
        self.equipment.operator = await read_operator(self._client)
        await self._set_smsc()
        await self._step(PDU_MODE_STEP)
        await self._choose_stores()
        await self._choose_notification()
        self._client.lenient = False
        return self.equipment

    async def _ask(self, text: str) -> Response:
        return await self._patiently(commands.setting(text))

    async def _patiently(self, command: Command) -> Response:
        """Execute, again while the SIM is busy."""
        response = await self._client.execute(command)
        for _ in range(self._patience.tries):
            if not is_busy(response.result):
                break
            await asyncio.sleep(self._patience.retry_s)
            response = await self._client.execute(command)
        return response

    async def _step(self, step: Step) -> None:
        response = await self._client.execute(step.command)
        if step.tolerance is Tolerance.IGNORE:
            return
        for _ in range(self._patience.tries):
            if response.ok:
                return
            await asyncio.sleep(self._patience.retry_s)
            response = await self._client.execute(step.command)
        if not response.ok:
            raise ChannelLost(f"{step.command.text} is refused: {response.result}")

    # -- the modem --

    async def _identify(self) -> None:
        found = self.equipment
        found.manufacturer = await self._name_of("AT+CGMI")
        found.model = await self._name_of("AT+CGMM")
        found.revision = await self._name_of("AT+CGMR")
        found.imei = imei(await self._lines("AT+CGSN"))
        if not found.model:
            await self._identify_by_ati()
        found.profile = profile_for(found.manufacturer, found.model)
        self._client.engine.learn(found.profile.urcs)
        self._client.guard_time_s = max(self._client.guard_time_s, found.profile.guard_time_s)

    async def _identify_by_ati(self) -> None:
        found = self.equipment
        lines = await self._lines("ATI")
        labelled = {label.strip().lower(): value.strip() for label, _, value in (line.partition(":") for line in lines)}
        plain = [line for line in lines if ":" not in line]
        found.manufacturer = found.manufacturer or labelled.get("manufacturer") or (plain[0] if plain else "")
        found.model = labelled.get("model") or (plain[1] if len(plain) > 1 else "")
        found.revision = found.revision or labelled.get("revision") or (plain[2] if len(plain) > 2 else "")
        found.imei = found.imei or imei([labelled.get("imei", "")])

    async def _lines(self, text: str) -> list[str]:
        response = await self._client.execute(commands.bare(text))
        return [unprefixed(info.line) for info in response.lines] if response.ok else []

    async def _name_of(self, text: str) -> str:
        lines = await self._lines(text)
        return lines[0][:80] if lines else ""

    async def _quieten(self) -> None:
        for text in self.equipment.profile.quiet:
            await self._ask(text)

    async def _radio_on(self) -> None:
        response = await self._client.execute(commands.query("+CFUN"))
        if response.ok and response.text and response.text.split(",")[0].strip() != "1":
            # Some say OK before the radio is up: the waiting for the SIM below covers it.
            await self._client.execute(commands.setting("AT+CFUN=1", commands.RADIO))

    # -- the SIM --

    async def _await_sim(self) -> None:
        """Until AT+CPIN? says READY. Raises ChannelLost (no SIM, SIM failure), ChannelParked (PIN, PUK, locks)."""
        deadline = asyncio.get_running_loop().time() + self._patience.sim_s
        errors = 0
        while True:
            response = await self._client.execute(commands.query("+CPIN", commands.SIM))
            state = response.text.strip('" ').upper()
            if state:  # also without its OK
                check_pin_state(state)
                return
            check_sim_result(response.result)
            if response.result.code is None:
                errors += 1
            if errors >= self._patience.plain_errors:
                raise ChannelLost(f"AT+CPIN? is answered by {response.result} only: is a SIM in?")
            if asyncio.get_running_loop().time() > deadline:
                raise ChannelLost(f"the SIM is not ready after {self._patience.sim_s:g} s: {response.result}")
            await asyncio.sleep(self._patience.retry_s)

    async def _identify_sim(self) -> None:
        response = await self._patiently(commands.bare("AT+CIMI", commands.SIM))
        imsi = digits(response.lines[0].line, 6, 15) if response.ok and response.lines else ""
        iccid = await self._read_iccid()
        if not imsi and not iccid:
            raise ChannelLost("neither the IMSI nor the ICCID of the SIM can be read")
        self.equipment.sim = SimIdentity(iccid=iccid, imsi=imsi)

    async def _read_iccid(self) -> str:
        for text in self.equipment.profile.iccid:
            response = await self._client.execute(commands.bare(text, commands.SIM))
            if response.ok and response.lines and (iccid := parse_iccid(response.lines[0].line)):
                return iccid
        # EF-ICCID, read raw: 31.102 §4.2.1, digits swapped in pairs
        response = await self._ask("AT+CRSM=176,12258,0,0,10")
        match = re.search(r'"?([0-9A-Fa-f]{20})"?\s*$', response.text, re.ASCII)
        return parse_iccid(swap(match[1])) if response.ok and match else ""

    # -- the network --

    async def _watch_networks(self) -> None:
        for network in self._networks:
            if not (await self._ask(f"AT{network}=2")).ok:
                await self._ask(f"AT{network}=1")
            stat = await read_registration(self._client, network)
            if stat is not None:
                self.equipment.registration[network] = stat

    async def _set_smsc(self) -> None:
        response = await self._client.execute(commands.query("+CSCA", commands.SETTING))
        match = re.match(r'"([^"]*)"|([+0-9]+)', response.text)
        current = (match[1] or match[2] or "") if response.ok and match else ""
        self.equipment.smsc = current
        if self._smsc and self._smsc != current:  # only then: each write wears the SIM
            kind = 145 if self._smsc.startswith("+") else 129
            if (await self._ask(f'AT+CSCA="{self._smsc}",{kind}')).ok:
                self.equipment.smsc = self._smsc
            else:
                logger.warning("%s: the SMS centre %s could not be set", self._name, self._smsc)
        elif not current:
            logger.warning("%s: the SIM knows no SMS centre; set smsc, or sending fails with CMS 330", self._name)

    # -- receiving --

    async def _choose_stores(self) -> None:
        """Keep messages in one memory, and know all that can be read: class 2 lands in SM, whatever is set."""
        ranges = await self._client.execute(commands.ranges("+CPMS"))
        readable, common = parse_stores(ranges.text if ranges.ok else "")
        profile = self.equipment.profile
        for store in [store for store in profile.stores if not common or store in common]:
            for count in profile.cpms_parameters:
                if (await self._ask(cpms(store, store, count))).ok:
                    self.equipment.cpms_parameters = count
                    combined = {"ME", "SM"} if store == "MT" else {"MT"}
                    others = (other for other in ("ME", "SM", "SR") if other in readable and other not in combined)
                    self.equipment.stores = tuple(dict.fromkeys((store, *others)))
                    return
        current = await self._client.execute(commands.STORES_QUERY)
        stores = re.findall(r'"(\w+)"', current.text) if current.ok else []
        self.equipment.stores = tuple(stores[:1]) or ("",)
        logger.warning(
            "%s: the message store cannot be chosen; using %s", self._name, self.equipment.store or "what is"
        )

    async def _choose_notification(self) -> None:
        """The first value of the ladder that is accepted and reads back as it was set."""
        if self._direct and (await self._ask("AT+CSMS=1")).ok and await self._notify(_DIRECT_CNMI):
            self.equipment.acknowledge = True
            return
        if self.equipment.profile.csms:
            await self._ask(f"AT+CSMS={self.equipment.profile.csms}")
        if await self._notify(self.equipment.profile.cnmi):
            return
        logger.warning("%s: the modem announces no messages (AT+CNMI refused); they are found by polling", self._name)

    async def _notify(self, ladder: tuple[str, ...]) -> bool:
        for value in ladder:
            if not (await self._ask(f"AT+CNMI={value}")).ok:
                continue
            back = await self._client.execute(commands.NOTIFICATION_QUERY)
            if not back.ok or notifies(back.text, value):
                self.equipment.cnmi = value
                return True
        return False


def check_pin_state(state: str) -> None:
    """What +CPIN: says. Returns where the SIM can be used; raises ChannelParked. Source: 27.007 §8.3."""
    if state in ("READY", "SIM PIN2", "SIM PUK2"):
        return
    if state == "SIM PIN":
        raise ChannelParked("the SIM asks for its PIN, and this version never enters one: turn the PIN off in a phone")
    if state.startswith("SIM PUK"):
        raise ChannelParked(
            "the SIM is locked and asks for its PUK: ten wrong ones destroy it, so a person must enter it"
        )
    raise ChannelParked(f"the modem or SIM is locked ({state}): a person must unlock it")


def check_sim_result(result: Result) -> None:
    """What an error of AT+CPIN? says. Returns where trying again may help; raises ChannelLost or ChannelParked."""
    if result.is_(Kind.CME, 11) or result.is_(Kind.CMS, 311):
        check_pin_state("SIM PIN")
    if result.is_(Kind.CME, 12) or result.is_(Kind.CMS, 316):
        check_pin_state("SIM PUK")
    if result.is_(Kind.CME, 5, 6, 7, *range(40, 49)) or result.is_(Kind.CMS, 312):
        check_pin_state(f"PH-SIM, {result}")
    if result.is_(Kind.CME, 10) or result.is_(Kind.CMS, 310):
        raise ChannelLost("no SIM in the modem")
    if result.is_(Kind.CME, 13, 15) or result.is_(Kind.CMS, 313, 315):
        raise ChannelLost(f"the SIM does not work ({result}): take it out and put it in again")


async def read_registration(client: AtClient, network: str) -> int | None:
    """<stat> of one registration query; None where the modem does not know it. Source: 27.007 §7.2, §10.1.20."""
    response = await client.execute(commands.query(network))
    fields = response.text.split(",") if response.ok else []
    if not fields:
        return None
    return number(fields[1] if len(fields) > 1 else fields[0])


async def read_operator(client: AtClient) -> str:
    """The operator as AT+COPS? gives it (MCC and MNC after AT+COPS=3,2); "" if none."""
    response = await client.execute(commands.query("+COPS", commands.OPERATOR))
    match = re.match(r'\s*\d+\s*,\s*\d+\s*,\s*"?([^",]*)', response.text, re.ASCII)
    return match[1].strip() if response.ok and match else ""
