"""What the emulated models say of themselves and where they differ: data only, no `if model ==` anywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Personality:
    """One model.

    `unknown` answers a command it does not have. `fixed` maps a command as written ("+QPINC?") to its information
    lines, in which `{iccid}`, `{pin_tries}` and `{puk_tries}` are filled in; an empty tuple is a bare OK. `boot` is
    what it says while starting. `stores` gives the size of each store; `index_base` is the index of their first place.
    `bare_cms`: it gives +CMS ERROR codes also after AT+CMEE=0. `full` is said when a store has filled up.
    """

    name: str
    manufacturer: str
    model: str
    revision: str
    unknown: str = "ERROR"
    fixed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    boot: tuple[str, ...] = ()
    stores: Mapping[str, int] = field(default_factory=dict)
    index_base: int = 1
    default_store: str = "SM"
    bare_cms: bool = False
    full: str = ""


_PERSONALITIES = (
    Personality(
        name="generic",
        manufacturer="Emulated",
        model="GM1",
        revision="1.0",
        fixed={"+CCID": ("+CCID: {iccid}",)},
        boot=("RDY", "+CPIN: READY", "SMS Ready"),
        stores={"SM": 30, "ME": 100, "SR": 20},
    ),
    Personality(
        name="huawei",
        manufacturer="huawei",
        model="E1752",
        revision="11.126.13.00.00",
        unknown="COMMAND NOT SUPPORT",
        fixed={
            "^ICCID?": ("^ICCID: {iccid}",),
            "^CPIN?": ("^CPIN: READY,,{puk_tries},{pin_tries},10,3",),
            "^CURC=0": (),
            "^CURC=1": (),
            "^PORTSEL=1": (),
        },
        boot=("^SYSSTART", "^SRVST:2", "^MODE:5,4"),
        stores={"SM": 20, "ME": 23},
        index_base=0,
        full='^SMMEMFULL: "{store}"',
    ),
    Personality(
        name="quectel",
        manufacturer="Quectel",
        model="EC25",
        revision="EC25EFAR06A03M4G",
        fixed={
            "+CCID": ("+CCID: {iccid}",),
            "+QCCID": ("+QCCID: {iccid}",),
            "+QPINC?": ('+QPINC: "SC",{pin_tries},{puk_tries}', '+QPINC: "P2",3,10'),
            "+QURCCFG?": ('+QURCCFG: "urcport","usbat"',),
            '+QURCCFG="URCPORT","USBAT"': (),
            '+QINDCFG="SMSFULL",1': (),
        },
        boot=("RDY", "+CFUN: 1", "+CPIN: READY", "+QIND: SMS DONE", "+QIND: PB DONE"),
        stores={"SM": 50, "ME": 255, "SR": 20},
        index_base=0,
        default_store="ME",
        full='+QIND: "smsfull","{store}"',
    ),
    Personality(
        name="simcom",
        manufacturer="SIMCOM INCORPORATED",
        model="SIMCOM_SIM7600E",
        revision="LE11B14SIM7600M22",
        fixed={
            "+CCID": ("{iccid}",),
            "+CICCID": ("+ICCID: {iccid}",),
            "+SPIC": ("+SPIC: {pin_tries},{puk_tries},3,10",),
            "+AUTOCSQ=0": (),
            "+CNSMOD=0": (),
        },
        boot=("RDY", "+CPIN: READY", "SMS DONE", "PB DONE"),
        stores={"SM": 40, "ME": 23, "SR": 20},
        index_base=0,
        bare_cms=True,
        full="+SMS FULL",
    ),
)

PERSONALITIES: Mapping[str, Personality] = {personality.name: personality for personality in _PERSONALITIES}
