"""What the control socket can do to a running simulator: JSON lines, one request and one answer a line.

A request is `{"do": NAME, …}`, an answer `{"ok": true, …}` or `{"ok": false, "error": "…"}`. docs/simulator.md has the
list; `COMMANDS` is its source.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from gatewayd.errors import EncodeError
from gatewayd.modems.pdu import Address
from gatewayd.modems.simulator.faults import Point
from gatewayd.modems.simulator.modem import Modem, State
from gatewayd.modems.simulator.sim import SimCard

if TYPE_CHECKING:
    from gatewayd.modems.simulator.server import Simulator

MAX_LINE = 1 << 20
Request = Mapping[str, Any]
Answer = dict[str, Any]
Handler = Callable[["Simulator", Request], Answer | Awaitable[Answer]]


class ControlServer:
    """The socket, as a context."""

    def __init__(self, simulator: Simulator, path: Path) -> None:
        self._simulator = simulator
        self._path = path
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ControlServer:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self._path, limit=MAX_LINE)
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError, ValueError):  # ValueError: line too long
                while line := await reader.readline():
                    writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                    await writer.drain()
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _answer(self, line: bytes) -> Answer:
        try:
            request = json.loads(line)
            if not isinstance(request, dict) or request.get("do") not in COMMANDS:
                raise ValueError(f"'do' is one of {', '.join(COMMANDS)}")
            answer = COMMANDS[request["do"]](self._simulator, request)
            return {"ok": True, **(answer if isinstance(answer, dict) else await answer)}
        except (ValueError, TypeError, KeyError, EncodeError, TimeoutError) as error:
            return {"ok": False, "error": f"{type(error).__name__}: {error}"}


def _modem(simulator: Simulator, request: Request) -> Modem:
    number = request["modem"]
    if not isinstance(number, int) or not 0 <= number < len(simulator.modems):
        raise ValueError(f"modem: 0 to {len(simulator.modems) - 1}")
    return simulator.modems[number]


def _modems(simulator: Simulator, request: Request) -> list[Modem]:
    """The modem named, or all."""
    return [_modem(simulator, request)] if request.get("modem") is not None else simulator.modems


def _sim(simulator: Simulator, request: Request) -> SimCard:
    modem = _modem(simulator, request)
    if modem.sim is None:
        raise ValueError(f"{modem.name} has no SIM")
    return modem.sim


def _ledger(simulator: Simulator, request: Request) -> Answer:
    ledger = simulator.ledger
    answer: Answer = {"counts": dict(ledger.counts), "next": len(ledger)}
    if "since" in request:
        answer["rows"] = ledger.rows(int(request["since"]), int(request.get("limit", 10_000)))
    else:
        ledger.flush()
    return answer


async def _wait(simulator: Simulator, request: Request) -> Answer:
    async with asyncio.timeout(float(request.get("timeout_s", 10.0))):
        await simulator.ledger.wait(str(request["kind"]), int(request.get("count", 1)))
    return {"counts": dict(simulator.ledger.counts)}


def _set_latency(simulator: Simulator, request: Request) -> Answer:
    value = request["ms"]
    low, high = value if isinstance(value, list) else (value, value)
    if not 0 <= low <= high:
        raise ValueError("ms: a number, or [low, high]")
    for modem in _modems(simulator, request):
        modem.latency_s = (low / 1000, high / 1000)
    return {}


def _set_delays(simulator: Simulator, request: Request) -> Answer:
    centre = simulator.centre
    for name in ("report", "expiry", "redelivery"):
        if f"{name}_ms" in request:
            setattr(centre, f"{name}_delay_s" if name != "redelivery" else "redelivery_s", request[f"{name}_ms"] / 1000)
    if "ack_limit_ms" in request:
        for modem in _modems(simulator, request):
            modem.reception.ack_limit_s = request["ack_limit_ms"] / 1000
    return {}


def _inbound(simulator: Simulator, request: Request) -> Answer:
    sim = _sim(simulator, request)
    if "tpdu" in request:
        simulator.centre.send_tpdu(sim, bytes.fromhex(request["tpdu"]))
        return {}
    sender = str(request["from"])
    try:
        address = Address.to_send(sender)
    except EncodeError:
        address = Address.alphanumeric(sender)
    simulator.centre.send_text(sim, address, str(request["text"]), message_class=request.get("class"))
    return {}


def _unplug(simulator: Simulator, request: Request) -> Answer:
    """Now, or at a phase of the next submission."""
    modem = _modem(simulator, request)
    if (phase := request.get("at")) is not None:
        modem.faults.arm(f"unplug_{Point(phase)}", skip=int(request.get("skip", 0)))
    else:
        modem.unplug()
    return {}


def _plug(simulator: Simulator, request: Request) -> Answer:
    modem = _modem(simulator, request)
    port = simulator.ports[simulator.modems.index(modem)]
    if port.is_plugged:
        raise ValueError(f"{modem.name} is plugged in")
    name = request.get("as")
    if name is not None and (not isinstance(name, str) or "/" in name or name in ("", ".", "..")):
        raise ValueError("as: a name in the simulator's folder")
    port.plug(simulator.directory / name if name else None)
    modem.power_on()
    return {"path": str(port.link)}


def _restart(simulator: Simulator, request: Request) -> Answer:
    _modem(simulator, request).restart(float(request.get("start_ms", 100)) / 1000)
    return {}


def _fault(simulator: Simulator, request: Request) -> Answer:
    plan = _modem(simulator, request).faults
    if request.get("clear"):
        plan.clear()
    if "name" in request:
        count, skip = int(request.get("count", 1)), int(request.get("skip", 0))
        plan.arm(str(request["name"]), count=count, skip=skip, parameters=request.get("parameters"))
    return {"armed": plan.names()}


def _registration(simulator: Simulator, request: Request) -> Answer:
    """One <stat> for all domains, or one each by its command."""
    stat = request["stat"]
    for modem in _modems(simulator, request):
        stats = dict.fromkeys(modem.registration, stat) if isinstance(stat, int) else dict(stat)
        if stats.keys() - modem.registration.keys() or not all(value in range(11) for value in stats.values()):
            raise ValueError('stat: 0 to 10, or {"+CREG": …, "+CGREG": …, "+CEREG": …}')
        modem.set_registration(stats)
    return {}


def _signal(simulator: Simulator, request: Request) -> Answer:
    rssi = int(request["rssi"])
    if rssi not in (*range(32), 99):
        raise ValueError("rssi: 0 to 31, or 99")
    for modem in _modems(simulator, request):
        modem.rssi = rssi
    return {}


def _swap_sim(simulator: Simulator, request: Request) -> Answer:
    """Out, another one by its ICCID, or a new one with a number."""
    modem = _modem(simulator, request)
    if request.get("remove"):
        modem.insert_sim(None)
        return {}
    known = simulator.sims.get(str(request.get("iccid", "")))
    sim = known or simulator.make_sim(len(simulator.sims), str(request["number"]), str(request.get("iccid", "")))
    modem.insert_sim(sim)
    return {"iccid": sim.iccid, "imsi": sim.imsi, "number": sim.number}


def _pin(simulator: Simulator, request: Request) -> Answer:
    """Set a PIN (its lock holds from the next power-up on, or at once with `lock`), the tries left, the PUK."""
    sim = _sim(simulator, request)
    sim.pin = str(request.get("pin", sim.pin))
    sim.puk = str(request.get("puk", sim.puk))
    sim.pin_tries = int(request.get("pin_tries", sim.pin_tries))
    sim.puk_tries = int(request.get("puk_tries", sim.puk_tries))
    sim.verified = not request.get("lock", True)
    return {"lock": sim.lock}


def _store(simulator: Simulator, request: Request) -> Answer:
    """Size and index base of a store, and what is in it."""
    modem = _modem(simulator, request)
    store = modem.store(str(request["store"]))
    if store is None:
        raise ValueError(f"{modem.name} has no store {request['store']}")
    if "base" in request and store.slots:
        raise ValueError("base: only while the store is empty")
    store.size = max(int(request.get("size", store.size)), 0)
    store.base = int(request.get("base", store.base))
    modem.reception.room_made()
    slots = {index: {"stat": slot.stat.value, "pdu": slot.pdu} for index, slot in sorted(store.slots.items())}
    return {"size": store.size, "base": store.base, "slots": slots}


def _emit(simulator: Simulator, request: Request) -> Answer:
    """An unsolicited result (`text`), or any octets at once (`hex`)."""
    modem = _modem(simulator, request)
    if "text" in request:
        modem.urc(str(request["text"]))
    else:
        modem.raw(bytes.fromhex(request["hex"]))
    return {}


def _status(simulator: Simulator, request: Request) -> Answer:
    modem = _modem(simulator, request)
    sim = modem.sim
    return {
        "name": modem.name,
        "path": str(simulator.ports[simulator.modems.index(modem)].link),
        "imei": modem.imei,
        "powered": modem.state is not State.OFF,
        "registered": modem.is_registered(),
        "echo": modem.settings.echo,
        "cmee": modem.settings.cmee,
        "cnmi": modem.settings.cnmi,
        "csms": modem.settings.csms,
        "mem": modem.settings.mem,
        "faults": modem.faults.names(),
        "sim": {
            "iccid": sim.iccid,
            "imsi": sim.imsi,
            "number": sim.number,
            "lock": sim.lock,
            "pin_tries": sim.pin_tries,
            "next_mr": sim.next_mr,
            "waiting": simulator.centre.waiting(sim),
        }
        if sim is not None
        else None,
    }


COMMANDS: Mapping[str, Handler] = {
    "ledger": _ledger,
    "wait": _wait,
    "latency": _set_latency,
    "delays": _set_delays,
    "inbound": _inbound,
    "unplug": _unplug,
    "plug": _plug,
    "restart": _restart,
    "fault": _fault,
    "registration": _registration,
    "signal": _signal,
    "swap_sim": _swap_sim,
    "pin": _pin,
    "store": _store,
    "emit": _emit,
    "status": _status,
}
