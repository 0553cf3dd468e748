"""The AT commands that have nothing to do with short messages. Sources: ITU-T V.250, 3GPP TS 27.007.

A handler returns its information lines and raises AtError if it fails; the final result is the modem's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gatewayd.modems.simulator.atline import Command
from gatewayd.modems.simulator.interfaces import AtError, cme

if TYPE_CHECKING:
    from gatewayd.modems.simulator.modem import Modem

Handler = Callable[["Modem", Command], Sequence[str] | None]

CELL = ',"2A1B","00C3D4E5"'
_ICCID_FILE = (176, 12258, 0, 0, 10)  # READ BINARY of EF-ICCID, 3GPP TS 51.011 §10.1.1
_NOTHING: Sequence[str] = ()


def _ok(_: Modem, __: Command) -> Sequence[str]:
    return _NOTHING


def _no_carrier(_: Modem, __: Command) -> Sequence[str]:
    raise AtError("", result="NO CARRIER")


def _flag(name: str, *, inverse: bool = False) -> Handler:
    def handle(modem: Modem, command: Command) -> Sequence[str]:
        if command.value not in ("", "0", "1"):
            raise AtError("")
        setattr(modem.settings, name, (command.value == "1") is not inverse)
        return _NOTHING

    return handle


def _reset(modem: Modem, _: Command) -> Sequence[str]:
    modem.reset_settings(modem.profile)
    return _NOTHING


def _factory(modem: Modem, _: Command) -> Sequence[str]:
    modem.reset_settings()
    return _NOTHING


def _save(modem: Modem, _: Command) -> Sequence[str]:
    for name in ("echo", "verbose", "quiet", "cmee"):
        setattr(modem.profile, name, getattr(modem.settings, name))
    return _NOTHING


def _register(_: Modem, command: Command) -> Sequence[str]:
    return ["000"] if command.value.endswith("?") else _NOTHING


def _identify(modem: Modem, _: Command) -> Sequence[str]:
    personality = modem.personality
    return [personality.manufacturer, personality.model, f"Revision: {personality.revision}", f"IMEI: {modem.imei}"]


def _text(get: Callable[[Modem], str]) -> Handler:
    def handle(modem: Modem, command: Command) -> Sequence[str]:
        if command.op == "=?":
            return _NOTHING
        if command.op != "":
            raise cme(4)
        return [get(modem)]

    return handle


def _choice(name: str, allowed: range, *, prefix: str) -> Handler:
    """A setting that is one number: =n, ? and =?."""

    def handle(modem: Modem, command: Command) -> Sequence[str]:
        if command.op == "=?":
            return [f"{prefix}: ({','.join(map(str, allowed))})"]
        if command.op == "?":
            return [f"{prefix}: {getattr(modem.settings, name)}"]
        value = command.numbers(1)[0]
        if command.op != "=" or value not in allowed:
            raise cme(50)
        setattr(modem.settings, name, value)
        return _NOTHING

    return handle


def _cfun(modem: Modem, command: Command) -> Sequence[str]:
    if command.op == "=?":
        return ["+CFUN: (0,1,4),(0,1)"]
    if command.op == "?":
        return [f"+CFUN: {modem.cfun}"]
    level, restart = command.numbers(2)
    if command.op != "=" or level is None or level not in (0, 1, 4) or restart not in (None, 0, 1):
        raise cme(50)
    if restart:
        modem.after_final = modem.restart
        return _NOTHING
    before = {name: modem.registration_of(name) for name in modem.registration}
    modem.cfun = level
    modem.after_final = lambda: modem.service_changed(before)
    return _NOTHING


def _cpin(modem: Modem, command: Command) -> Sequence[str]:
    if command.op == "=?":
        return _NOTHING
    sim = modem.require_sim(unlocked=False)
    if command.op == "?":
        return [f"+CPIN: {sim.lock}"]
    values = command.arguments()
    if command.op != "=" or sim.lock == "READY":
        raise cme(3)
    if sim.lock == "SIM PUK":
        if len(values) != 2:
            raise cme(12)
        accepted = sim.enter_puk(values[0], values[1])
    else:
        if len(values) != 1:
            raise cme(50)
        accepted = sim.enter_pin(values[0])
    if not accepted:
        raise cme(16)
    modem.after_final = lambda: modem.service_changed(dict.fromkeys(modem.registration, 0))
    return _NOTHING


def _cpinr(modem: Modem, command: Command) -> Sequence[str]:
    sim = modem.require_sim(unlocked=False)
    if command.op == "=?":
        return _NOTHING
    return [f"+CPINR: SIM PIN,{sim.pin_tries},3", f"+CPINR: SIM PUK,{sim.puk_tries},10"]


def _clck(modem: Modem, command: Command) -> Sequence[str]:
    if command.op == "=?":
        return ['+CLCK: ("SC")']
    sim = modem.require_sim(unlocked=False)
    if command.arguments()[:2] != ["SC", "2"]:
        raise cme(3)
    return [f"+CLCK: {int(bool(sim.pin))}"]


def _crsm(modem: Modem, command: Command) -> Sequence[str]:
    sim = modem.require_sim(unlocked=False)
    if command.op == "=?":
        return _NOTHING
    if tuple(command.numbers(7)[:5]) != _ICCID_FILE:
        raise cme(4)
    digits = sim.iccid.ljust(20, "F")
    swapped = "".join(digits[at + 1] + digits[at] for at in range(0, 20, 2))
    return [f'+CRSM: 144,0,"{swapped}"']


def _registration(modem: Modem, command: Command) -> Sequence[str]:
    name = command.name
    if command.op == "=?":
        return [f"{name}: (0-2)"]
    n = modem.settings.registration[name]
    if command.op == "?":
        return [f"{name}: {n},{modem.registration_of(name)}" + (CELL if n == 2 else "")]
    value = command.numbers(1)[0]
    if command.op != "=" or value is None or value not in range(3):
        raise cme(50)
    modem.settings.registration[name] = value
    return _NOTHING


def _cops(modem: Modem, command: Command) -> Sequence[str]:
    names = ('"Emulated"', '"Emul"', '"74899"')
    if command.op == "=?":
        return [f"+COPS: (2,{names[0]},{names[1]},{names[2]},7),,(0,1,2,3,4),(0,1,2)"]
    if command.op == "?":
        if not modem.is_registered():
            return ["+COPS: 0"]
        style = modem.settings.cops_format
        return [f"+COPS: 0,{style},{names[style]},7"]
    values = command.arguments()
    if command.op != "=" or not values or values[0] not in ("0", "1", "2", "3", "4"):
        raise cme(50)
    if len(values) > 1 and values[1]:
        if values[1] not in ("0", "1", "2"):
            raise cme(50)
        modem.settings.cops_format = int(values[1])
    return _NOTHING


def _csq(modem: Modem, command: Command) -> Sequence[str]:
    return ["+CSQ: (0-31,99),(0-7,99)"] if command.op == "=?" else [f"+CSQ: {modem.rssi},99"]


def _cscs(modem: Modem, command: Command) -> Sequence[str]:
    if command.op == "=?":
        return ['+CSCS: ("GSM","IRA","UCS2")']
    if command.op == "?":
        return [f'+CSCS: "{modem.settings.cscs}"']
    values = command.arguments()
    if len(values) != 1 or values[0].upper() not in ("GSM", "IRA", "UCS2"):
        raise cme(50)
    modem.settings.cscs = values[0].upper()
    return _NOTHING


def _cnum(modem: Modem, command: Command) -> Sequence[str]:
    sim = modem.require_sim()
    if command.op == "=?" or not sim.number:
        return _NOTHING
    return [f'+CNUM: "","{sim.number}",145']


def _cusd(_: Modem, command: Command) -> Sequence[str]:
    if command.op == "=?":
        return ["+CUSD: (0-2)"]
    if command.op == "=" and command.value in ("0", "1", "2"):
        return _NOTHING
    raise AtError("")


def _fixed(read: Sequence[str], test: Sequence[str] = ()) -> Handler:
    """A command that answers its questions, and takes every setting without effect."""

    def handle(_: Modem, command: Command) -> Sequence[str]:
        if command.op == "=":
            return _NOTHING
        return test if command.op == "=?" else read

    return handle


HANDLERS: dict[str, Handler] = {
    "E": _flag("echo"),
    "V": _flag("verbose"),
    "Q": _flag("quiet"),
    "Z": _reset,
    "&F": _factory,
    "&W": _save,
    "S": _register,
    "I": _identify,
    "D": _no_carrier,
    "A": _no_carrier,
    "O": _no_carrier,
    **dict.fromkeys(("H", "L", "M", "X", "B", "N", "P", "T", "&C", "&D", "&K", "&S", "&V"), _ok),
    **dict.fromkeys(("+CGMI", "+GMI"), _text(lambda modem: modem.personality.manufacturer)),
    **dict.fromkeys(("+CGMM", "+GMM"), _text(lambda modem: modem.personality.model)),
    **dict.fromkeys(("+CGMR", "+GMR"), _text(lambda modem: modem.personality.revision)),
    **dict.fromkeys(("+CGSN", "+GSN"), _text(lambda modem: modem.imei)),
    "+CIMI": _text(lambda modem: modem.require_sim().imsi),
    "+GCAP": _text(lambda _: "+GCAP: +CGSM"),
    "+CMEE": _choice("cmee", range(3), prefix="+CMEE"),
    "+CFUN": _cfun,
    "+CPIN": _cpin,
    "+CPINR": _cpinr,
    "+CLCK": _clck,
    "+CRSM": _crsm,
    **dict.fromkeys(("+CREG", "+CGREG", "+CEREG"), _registration),
    "+COPS": _cops,
    "+CSQ": _csq,
    "+CSCS": _cscs,
    "+CNUM": _cnum,
    "+CUSD": _cusd,
    "+CBC": _fixed(["+CBC: 0,100"]),
    "+IPR": _fixed(["+IPR: 115200"], ["+IPR: (),(9600,115200,460800,921600)"]),
    "+IFC": _fixed(["+IFC: 0,0"], ["+IFC: (0-2),(0-2)"]),
    "+ICF": _fixed(["+ICF: 3,3"]),
    "+CGSMS": _fixed(["+CGSMS: 3"], ["+CGSMS: (0-3)"]),
    **dict.fromkeys(("+CLIP", "+CRC", "+CVHU", "+CHUP", "+CLCC", "+CMOD", "+CTZU", "+CTZR", "+CSSN"), _fixed(())),
}
