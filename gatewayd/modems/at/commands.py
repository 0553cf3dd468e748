"""The commands gatewayd sends, each with what it expects and how long it may take.

The time limits are data with their reasons: too short a limit makes doubles, too long a one makes a dead modem look
alive. Source of the figures: spec/gsm-modem.md §1 (sheet), which has the vendors' own maxima beside them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """How long a final result may take, and why so long.

    `seconds` counts from the command (for AT+CMGS from the PDU). `silence_s`: give up earlier if nothing at all came
    for that long. `after_answer_s`: once an information line came, the final result follows within that time
    or not at all.
    """

    seconds: float
    why: str
    silence_s: float | None = None
    after_answer_s: float | None = None


PLAIN = Limit(5, "answered in 0.3 s; old Telit take up to 5")
SETTING = Limit(10, "0.3 to 5 s by the manuals, twice that while the SIM is busy")
SIM = Limit(10, "5 s by the manuals; the final OK after +CPIN is missing on some Wavecom", after_answer_s=2)
OPERATOR = Limit(15, "0.3 s as a rule; reads the network's name from the SIM on some")
RADIO = Limit(30, "15 s by the manuals for CFUN")
LISTING = Limit(90, "20 s for 50 messages by the manuals; a large store takes longer, but never falls silent", 15)
STORED = Limit(10, "5 s by the manuals for reading or deleting one message")
SUBMIT = Limit(
    180,
    "60 (SIM800, Telit) to 150 s (u-blox) by the manuals, CMS 350 seen at 135 s; shorter limits of peers make doubles",
    after_answer_s=5,
)


@dataclass(frozen=True, slots=True)
class Command:
    """One command line.

    `text` goes out with a CR. `prefixes` begin its information lines. `bare`: they may also come without a prefix
    (+CGMI, +CIMI). `body`: each information line owns the line after it (+CMGL, +CMGR in PDU mode). `prompted`: answers
    with a prompt for a PDU. `numeric`: sent while the modem may still be in ATV0, so "0" and "4" are results.
    """

    text: str
    limit: Limit = PLAIN
    prefixes: tuple[str, ...] = ()
    bare: bool = False
    body: bool = False
    prompted: bool = False
    numeric: bool = False


WITHDRAWAL = Command("\x1b", Limit(2, "answered at once with OK or ERROR; by some not at all"))
ATTENTION = Command("AT", PLAIN, numeric=True)
RESET = Command("ATZ", PLAIN, numeric=True)
FORMAT = Command("ATE0V1Q0", PLAIN, numeric=True)
NO_ECHO = Command("ATE0", PLAIN, numeric=True)
SIGNAL = Command("AT+CSQ", PLAIN, ("+CSQ:",))
PDU_MODE = Command("AT+CMGF=0", SETTING)
PDU_MODE_QUERY = Command("AT+CMGF?", PLAIN, ("+CMGF:",))
LIST_ALL = Command("AT+CMGL=4", LISTING, ("+CMGL:",), body=True)
STORES_QUERY = Command("AT+CPMS?", SETTING, ("+CPMS:", "+CPMS="))
NOTIFICATION_QUERY = Command("AT+CNMI?", SETTING, ("+CNMI:",))
ACKNOWLEDGE = Command("AT+CNMA", PLAIN)


def query(name: str, limit: Limit = PLAIN) -> Command:
    """`AT+NAME?`, answered by lines that begin with "+NAME:" (some malformed answers have "+NAME=")."""
    return Command(f"AT{name}?", limit, (f"{name}:", f"{name}="))


def ranges(name: str, limit: Limit = SETTING) -> Command:
    """`AT+NAME=?`: what the modem accepts."""
    return Command(f"AT{name}=?", limit, (f"{name}:", f"{name}="))


def setting(text: str, limit: Limit = SETTING) -> Command:
    """A command that sets something; the information lines some answer it with begin like its name."""
    name = text[2:].partition("=")[0].rstrip("?")
    return Command(text, limit, (f"{name}:",) if name[:1] in "+^*#$!" and name else ())


def bare(text: str, limit: Limit = PLAIN) -> Command:
    """A question whose answer comes without prefix, on some firmware with one (AT+CGMM)."""
    name = text[2:].rstrip("?")
    return Command(text, limit, (f"{name}:",) if name[:1] in "+^*#$!" and name else (), bare=True)


def submit(length_octets: int, timeout_s: float | None = None) -> Command:
    """`AT+CMGS` in PDU mode. `length_octets` is that of the TPDU, without the SMSC address: 27.005 §4.3."""
    limit = SUBMIT if timeout_s is None else Limit(timeout_s, "configured", after_answer_s=SUBMIT.after_answer_s)
    return Command(f"AT+CMGS={length_octets}", limit, ("+CMGS:",), prompted=True)


def read(index: int) -> Command:
    """`AT+CMGR`: one stored message with its PDU."""
    return Command(f"AT+CMGR={index}", STORED, ("+CMGR:",), body=True)


def delete(index: int) -> Command:
    """`AT+CMGD` of one index. Never with a flag: that kills what arrives meanwhile (sheet §4)."""
    return Command(f"AT+CMGD={index}", STORED)
