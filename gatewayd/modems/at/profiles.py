"""What modems say unasked, and what vendors do their own way: data laid over defaults, never a branch on a model.

Source: spec/gsm-modem.md (sheet) §1, §2, §8. None of it was verified on hardware.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

URC_PREFIXES: tuple[str, ...] = (
    "+CMTI:",
    "+CMT:",
    "+CDSI:",
    "+CDS:",
    "+CBMI:",
    "+CBM:",
    "+CREG:",
    "+CGREG:",
    "+CEREG:",
    "+C5GREG:",
    "+CUSD:",
    "+CIEV:",
    "+CPIN:",
    "+CFUN:",
    "+CRING:",
    "+CLIP:",
    "+CCWA:",
    "+COLP:",
    "+CSSI:",
    "+CSSU:",
    "+CGEV:",
    "+CTZV:",
    "+CTZE:",
    "+CTZR:",
    "+CSQ:",
    "+CSQN:",
    "+CNSMOD:",
    "+CPSI:",
    "+CALV:",
    "+CCALR:",
    "+SMS FULL",
    "+STIN:",
    "+SIMCARD:",
    "+QIND:",
    "+QUSIM:",
    "+QSIMSTAT:",
    "+QPWD",
    "+ZUSIMR:",
    "+ZEND",
    "+ZDONR:",
    "+ZPASR:",
    "+WIND:",
    "+PBREADY",
    "+UUSTS:",
    "+UREG:",
    "^RSSI",
    "^HCSQ",
    "^BOOT",
    "^MODE",
    "^SRVST",
    "^SIMST",
    "^STIN",
    "^SYSSTART",
    "^SMMEMFULL",
    "^SMGO",
    "^SSIM",
    "^DSFLOWRPT",
    "^DSDORMANT",
    "^NWTIME",
    "^CSNR",
    "^CONN",
    "^CEND",
    "^ORIG",
    "^CONF",
    "^THERM",
    "^EARST",
    "^STN",
    "^SHUTDOWN",
    "^EXIT",
    "#QSS:",
    "_OSIGQ:",
    "_OWANCALL:",
    "*EPEV",
    "*PSNWID:",
    "*PSUTTZ:",
    "UNDER-VOLTAGE",
    "OVER-VOLTAGE",
    "DST:",
)
"""How lines begin that come unasked. An answer of the outstanding command goes first; see engine.py."""

URC_LINES: frozenset[str] = frozenset(
    {
        "RING",
        "NO CARRIER",  # of a call, never of a command we send: sheet §1
        "BUSY",
        "NO ANSWER",
        "NO DIALTONE",
        "NO DIAL TONE",
        "RDY",
        "SMS READY",
        "SMS Ready",
        "SMS DONE",
        "Call Ready",
        "CALL READY",
        "PB DONE",
        "MODEM:STARTUP",
        "START",
        "STARTUP",
        "NORMAL POWER DOWN",
        "POWERED DOWN",
        "READY",
    }
)
"""Lines that come unasked, whole."""

BOOTED: tuple[str, ...] = (
    "RDY",
    "^SYSSTART",
    "+CFUN: 1",
    "MODEM:STARTUP",
    "NORMAL POWER DOWN",
    "POWERED DOWN",
    "^SHUTDOWN",
    "UNDER-VOLTAGE POWER",
    "UNDER-VOLTAGE POWERED DOWN",
    "OVER-VOLTAGE POWER DOWN",
    "+QPWD",
)
"""Seen in a session, these mean that the modem restarted or went off: all its settings are lost."""

BOOT_TAIL: tuple[str, ...] = (
    "+CPIN: READY",
    "Call Ready",
    "CALL READY",
    "SMS Ready",
    "SMS READY",
    "SMS DONE",
    "+QIND: SMS DONE",
    "+QIND: PB DONE",
    "PB DONE",
    "+WIND: 4",
    "+PBREADY",
)
"""The end of a boot. It may belong to the boot before the bring-up, so it only makes the settings doubtful."""

STORE_FULL: tuple[str, ...] = (
    "^SMMEMFULL",
    "+SMS FULL",
    '+QIND: "smsfull"',
    '+CIEV: "smsfull",1',
    "^SMGO: 1",
    "^SMGO: 2",
)


@dataclass(frozen=True, slots=True)
class Profile:
    """How to treat one family of modems.

    `quiet`: commands that stop floods of URCs, failures ignored. `iccid`: questions for the ICCID, in order of trust.
    `cnmi`: values for AT+CNMI, best first. `stores`: memories to keep messages in, best first. `cpms_parameters`: how
    many AT+CPMS takes, tried in this order. `csms`: the service to choose ("" leaves it). `codes`: family of its
    result codes beyond 511. `urcs`: more URC prefixes. `list_by_index`: AT+CMGL is of no use. `guard_time_s`: pause the
    modem needs after a final result.
    """

    name: str = "generic"
    quiet: tuple[str, ...] = ()
    iccid: tuple[str, ...] = ("AT+CCID", "AT+QCCID", "AT^ICCID?", "AT+CICCID", "AT#CCID")
    cnmi: tuple[str, ...] = ("2,1,0,1,0", "2,1,0,2,0", "1,1,0,1,0", "1,1,0,2,0", "3,1,0,1", "2,1")
    stores: tuple[str, ...] = ("ME", "MT", "SM")
    cpms_parameters: tuple[int, ...] = (3, 2, 1)
    csms: str = "0"
    codes: str = ""
    urcs: tuple[str, ...] = ()
    list_by_index: bool = False
    guard_time_s: float = 0.0


GENERIC = Profile()


@dataclass(frozen=True, slots=True)
class Quirk:
    """Laid over the defaults where `manufacturer` and `model` begin so (case ignored; "" fits any)."""

    manufacturer: str
    changes: dict[str, Any]
    model: str = ""


QUIRKS: tuple[Quirk, ...] = (
    Quirk(
        "huawei",
        # ^PORTSEL=1 moves URCs of old sticks to the PCUI port.
        {"name": "huawei", "quiet": ("AT^CURC=0", "AT^PORTSEL=1"), "iccid": ("AT^ICCID?", "AT+CCID", "AT+ICCID")},
    ),
    Quirk(
        "zte",
        # Asking for the stores stops the +ZUSIMR flood.
        {
            "name": "zte",
            "quiet": ("AT+CPMS?",),
            "cnmi": ("1,1,0,2,0", "1,1,0,1,0", "2,1,0,2,0", "3,1,0,1", "2,1"),
            "iccid": ("AT+ICCID", "AT+ZGETICCID", "AT+CCID"),
        },
    ),
    Quirk(
        "quectel",
        {
            "name": "quectel",
            "quiet": ('AT+QURCCFG="urcport","usbat"', 'AT+QINDCFG="smsfull",1'),
            "iccid": ("AT+QCCID", "AT+CCID"),
            "cpms_parameters": (3,),
        },
    ),
    Quirk("quectel", {"list_by_index": True}, model="ep06"),
    Quirk("quectel", {"list_by_index": True}, model="em06"),
    # Plain UART modules: no USB URC port, service 0 only.
    Quirk("quectel", {"quiet": ()}, model="m95"),
    Quirk("quectel", {"quiet": ()}, model="mc60"),
    Quirk(
        "simcom",
        {"name": "simcom", "quiet": ("AT+AUTOCSQ=0", "AT+CNSMOD=0"), "iccid": ("AT+CCID", "AT+CICCID", "AT+ICCID")},
    ),
    # SIM800 has no ds=2.
    Quirk("simcom", {"cnmi": ("2,1,0,1,0", "2,1")}, model="sim800"),
    Quirk("simcom", {"cnmi": ("2,1,0,1,0", "2,1")}, model="simcom_sim800"),
    Quirk(
        "wavecom",
        {"name": "wavecom", "quiet": ("AT+WIND=0",), "codes": "wavecom", "cpms_parameters": (2, 3, 1)},
    ),
    Quirk("sierra", {"name": "sierra", "iccid": ("AT!ICCID?", "AT+CCID", "AT+ICCID")}),
    Quirk(
        "cinterion",
        {
            "name": "cinterion",
            "codes": "cinterion",
            "cpms_parameters": (1, 3, 2),
            "iccid": ("AT^SCID", "AT+CCID"),
            "guard_time_s": 0.1,
        },
    ),
    Quirk(
        "siemens",
        {
            "name": "siemens",
            "codes": "cinterion",
            "cpms_parameters": (1, 3, 2),
            "iccid": ("AT^SCID", "AT+CCID"),
            "guard_time_s": 0.1,
        },
    ),
    Quirk("telit", {"name": "telit", "iccid": ("AT#CCID", "AT+CCID"), "guard_time_s": 0.02}),
    Quirk("u-blox", {"name": "u-blox"}),
    # +CDS refuses CNMA there, and what is not acknowledged hangs: store the reports.
    Quirk("novatel", {"name": "novatel", "cnmi": ("2,1,0,2,0", "1,1,0,2,0", "2,1")}),
    Quirk("option", {"name": "option", "quiet": ("AT_OSQI=0",)}),
)


def profile_for(manufacturer: str, model: str) -> Profile:
    """The profile of a modem as it names itself; GENERIC where no entry fits."""
    profile = GENERIC
    for quirk in QUIRKS:
        if not manufacturer.lower().startswith(quirk.manufacturer):
            continue
        if model.lower().startswith(quirk.model):
            profile = replace(profile, **quirk.changes)
    return profile
