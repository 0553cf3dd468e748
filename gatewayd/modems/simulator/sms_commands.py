"""The AT commands for short messages in PDU mode. Source: 3GPP TS 27.005 §3 and §4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gatewayd.modems.simulator.atline import Command, LineError
from gatewayd.modems.simulator.commands import Handler
from gatewayd.modems.simulator.interfaces import cms
from gatewayd.modems.simulator.sim import Slot, Stat, Store
from gatewayd.modems.simulator.submission import MAX_TPDU

if TYPE_CHECKING:
    from gatewayd.modems.simulator.modem import Modem

_NOTHING: Sequence[str] = ()
_CNMI_RANGES = (range(4), range(4), range(1), range(3), range(2))


def _cmgs(modem: Modem, command: Command) -> Sequence[str] | None:
    if command.op == "=?":
        return _NOTHING
    modem.require_sim("CMS")
    length = _number(command)
    if not 0 < length <= MAX_TPDU:
        raise cms(304)
    modem.submission.begin(length)
    return None


def _number(command: Command) -> int:
    """The only parameter; CMS 304 if it is none, as what text mode would have there."""
    try:
        value = command.numbers(1)[0]
    except LineError:
        value = None
    if command.op != "=" or value is None:
        raise cms(304)
    return value


def _cmgf(_: Modem, command: Command) -> Sequence[str]:
    if command.op == "=?":
        return ["+CMGF: (0)"]
    if command.op == "?":
        return ["+CMGF: 0"]
    if command.value not in ("0", ""):
        raise cms(303)
    return _NOTHING


def _csms(modem: Modem, command: Command) -> Sequence[str]:
    if command.op == "=?":
        return ["+CSMS: (0,1)"]
    if command.op == "?":
        return [f"+CSMS: {modem.settings.csms},1,1,1"]
    service = command.numbers(1)[0]
    if command.op != "=" or service is None or service not in (0, 1):
        raise cms(303)
    modem.settings.csms = service
    return ["+CSMS: 1,1,1"]


def _cmms(modem: Modem, command: Command) -> Sequence[str]:
    if command.op == "=?":
        return ["+CMMS: (0-2)"]
    if command.op == "?":
        return [f"+CMMS: {modem.settings.cmms}"]
    value = command.numbers(1)[0]
    if command.op != "=" or value is None or value not in range(3):
        raise cms(304)
    modem.settings.cmms = value
    return _NOTHING


def _csca(modem: Modem, command: Command) -> Sequence[str]:
    if command.op == "=?":
        return _NOTHING
    sim = modem.require_sim("CMS")
    if command.op == "?":
        return [f'+CSCA: "{sim.smsc}",{145 if sim.smsc.startswith("+") else 129}']
    values = command.arguments()
    if command.op != "=" or not 1 <= len(values) <= 2:
        raise cms(304)
    number = values[0]
    if not number.removeprefix("+").isdigit() and number:
        raise cms(304)
    sim.smsc = f"+{number}" if number and len(values) == 2 and values[1] == "145" and number[0] != "+" else number
    return _NOTHING


def _cpms(modem: Modem, command: Command) -> Sequence[str]:
    mem = modem.settings.mem
    if command.op == "=?":
        names = ",".join(f'"{name}"' for name in ("SM", *modem.stores))
        kept = ",".join(f'"{name}"' for name in ("SM", *modem.stores) if name != "SR")
        return [f"+CPMS: ({names}),({kept}),({kept})"]
    modem.require_sim("CMS")
    if command.op == "?":
        return ["+CPMS: " + ",".join(f'"{name}",{_usage(modem, name)}' for name in mem)]
    names_given = [name.upper() for name in command.arguments()]
    if command.op != "=" or not 1 <= len(names_given) <= 3:
        raise cms(304)
    for place, name in enumerate(names_given):
        if name and (modem.store(name) is None or (name == "SR" and place)):
            raise cms(302)
    modem.settings.mem = [given or old for given, old in zip([*names_given, "", ""], mem, strict=False)]
    return ["+CPMS: " + ",".join(_usage(modem, name) for name in modem.settings.mem)]


def _usage(modem: Modem, name: str) -> str:
    store = modem.store(name)
    return f"{len(store.slots)},{store.size}" if store is not None else "0,0"


def _cnmi(modem: Modem, command: Command) -> Sequence[str]:
    if command.op == "=?":
        return ["+CNMI: " + ",".join(f"({','.join(map(str, allowed))})" for allowed in _CNMI_RANGES)]
    if command.op == "?":
        return ["+CNMI: " + ",".join(map(str, modem.settings.cnmi))]
    if command.op != "=":
        raise cms(304)
    values = [value or 0 for value in command.numbers(5)]
    if any(value not in allowed for value, allowed in zip(values, _CNMI_RANGES, strict=True)):
        raise cms(303)
    modem.settings.cnmi = values
    modem.after_final = modem.reception.settings_changed
    return _NOTHING


def _cmgl(modem: Modem, command: Command) -> Sequence[str]:
    if command.op == "=?":
        return ["+CMGL: (0-4)"]
    modem.require_sim("CMS")
    wanted = _number(command) if command.op else Stat.REC_UNREAD
    if wanted not in range(5):
        raise cms(304)
    lines = []
    for index, slot in sorted(_listed(modem).slots.items()):
        if wanted in (Stat.ALL, slot.stat):
            lines.append(f"+CMGL: {index},{slot.stat.value},,{slot.length}\r\n{slot.pdu}")
            _mark_read(slot)
    return lines


def _cmgr(modem: Modem, command: Command) -> Sequence[str]:
    if command.op == "=?":
        return _NOTHING
    modem.require_sim("CMS")
    slot = _listed(modem).slots.get(_number(command))
    if slot is None:
        raise cms(321)
    line = f"+CMGR: {slot.stat.value},,{slot.length}\r\n{slot.pdu}"
    _mark_read(slot)
    return [line]


def _mark_read(slot: Slot) -> None:
    if slot.stat is Stat.REC_UNREAD:
        slot.stat = Stat.REC_READ


def _listed(modem: Modem) -> Store:
    store = modem.store(modem.settings.mem[0])
    if store is None:
        raise cms(310)
    return store


def _cmgd(modem: Modem, command: Command) -> Sequence[str]:
    modem.require_sim("CMS")
    store = _listed(modem)
    if command.op == "=?":
        return [f"+CMGD: ({','.join(map(str, sorted(store.slots)))}),(0-4)"]
    index, flag = command.numbers(2)
    if command.op != "=" or index is None or flag not in (None, 0, 1, 2, 3, 4):
        raise cms(304)
    if not flag:
        if index not in range(store.base, store.base + store.size):
            raise cms(321)
        store.slots.pop(index, None)
    else:
        store.slots = {index: slot for index, slot in store.slots.items() if slot.stat not in _DELETED[flag]}
    modem.after_final = modem.reception.room_made
    return _NOTHING


_DELETED = {
    1: (Stat.REC_READ,),
    2: (Stat.REC_READ, Stat.STO_SENT),
    3: (Stat.REC_READ, Stat.STO_SENT, Stat.STO_UNSENT),
    4: tuple(Stat),
}
"""What AT+CMGD deletes by its <delflag>."""


def _cnma(modem: Modem, command: Command) -> Sequence[str]:
    if command.op == "=?":
        return ["+CNMA: (0-2)"]
    value = command.numbers(2)[0] or 0
    if command.op not in ("", "=") or value not in range(3):
        raise cms(304)
    modem.reception.acknowledge(value != 2)
    return _NOTHING


HANDLERS: dict[str, Handler] = {
    "+CMGS": _cmgs,
    "+CMGF": _cmgf,
    "+CSMS": _csms,
    "+CMMS": _cmms,
    "+CSCA": _csca,
    "+CPMS": _cpms,
    "+CNMI": _cnmi,
    "+CMGL": _cmgl,
    "+CMGR": _cmgr,
    "+CMGD": _cmgd,
    "+CNMA": _cnma,
}
