"""What the information lines of a modem say: small pure readers, tolerant of what vendors do to them.

Source: 3GPP TS 27.007 and 27.005 (clauses below); spec/gsm-modem.md (sheet) §2, §6, §8.
"""

from __future__ import annotations

import re

from gatewayd.modems.at.results import Kind, Result

REGISTERED = frozenset({1, 5, 6, 7})  # home, roaming, the same for SMS only: 27.007 §7.2
ROAMING = frozenset({5, 7})
_REGISTRATION_TEXTS = {
    0: "not registered, not searching",
    2: "searching for a network",
    3: "registration denied",
    4: "registration unknown",
    8: "emergency calls only",
}


def number(text: str) -> int | None:
    """A small number, or None: `int` would also take signs, underscores and other alphabets."""
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def is_busy(result: Result) -> bool:
    """Whether the SIM only needs a moment."""
    return result.is_(Kind.CME, 14, 515) or result.is_(Kind.CMS, 314)


def is_gone(result: Result) -> bool:
    """Whether there is no such message: 27.005 §3.2.5, 27.007 §9.2."""
    return result.is_(Kind.CMS, 321) or result.is_(Kind.CME, 21, 22)


def registered(stats: dict[str, int], *, roaming: bool) -> str:
    """ "" if any of the networks takes our messages, else why not. CREG alone misleads on LTE (sheet §6)."""
    values = set(stats.values())
    if values & (REGISTERED if roaming else REGISTERED - ROAMING):
        return ""
    if values & ROAMING:
        return "roaming, and roaming is not allowed"
    texts = sorted({_REGISTRATION_TEXTS.get(value, f"registration {value}") for value in values})
    return ", ".join(texts) or "the modem does not say whether it is registered"


def rssi_dbm(text: str) -> int | None:
    """The received signal strength of +CSQ: in dBm; None if unknown. Source: 27.007 §8.5."""
    rssi = number(text.split(",")[0])
    if rssi is None:
        return None
    if rssi <= 31:
        return 2 * rssi - 113
    return rssi - 216 if 100 <= rssi <= 191 else None


def submit_ref(line: str | None) -> int | None:
    """The TP-MR of a +CMGS line; None where there is none."""
    match = re.match(r"\+CMGS:\s*(\d{1,3})(?!\d)", line or "", re.ASCII)
    return int(match[1]) if match is not None and int(match[1]) <= 255 else None


def notifies(text: str, value: str) -> bool:
    """Whether what +CNMI: reads back has the <mt> and <ds> of `value`. Source: 27.005 §3.4.1."""
    back, wanted = ([part.strip() for part in fields.split(",")] for fields in (text, value))
    return back[1:2] == wanted[1:2] and (len(wanted) < 4 or back[3:4] == wanted[3:4])


def cpms(read: str, keep: str, count: int) -> str:
    """AT+CPMS with `count` parameters: `read` to list and delete from, `keep` for what comes in."""
    return "AT+CPMS=" + ",".join([f'"{read}"', f'"{keep}"', f'"{keep}"'][:count])


def parse_stores(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What +CPMS=? lists: (memories that can be read, memories that all parameters take). Source: 27.005 §3.2.2."""
    groups = [re.findall(r'"(\w+)"', group) for group in re.findall(r"\(([^()]*)\)", text)]
    groups = [group for group in groups if group]
    if not groups:
        return (), ()
    common = [store for store in groups[0] if all(store in group for group in groups)]
    return tuple(groups[0]), tuple(common)


def parse_iccid(line: str) -> str:
    """The ICCID in an answer, without filler; "" if there is none. Some give it with its digits swapped in pairs."""
    match = re.search(r"(?<![0-9A-Fa-f])([0-9]{18,20}[0-9Ff]{0,2})(?![0-9A-Fa-f])", line, re.ASCII)
    if match is None:
        return ""
    found = match[1]
    if found.startswith("98"):  # all begin with 89: ITU-T E.118
        found = swap(found)
    return found.upper().rstrip("F")


def swap(text: str) -> str:
    """Swap the characters in pairs, as BCD in a SIM has them."""
    return "".join(text[i + 1 : i + 2] + text[i] for i in range(0, len(text), 2))


def unprefixed(line: str) -> str:
    """ "+CGMM: "E303"" gives E303: some prefix what should be bare."""
    return re.sub(r"^[+^*#$!]\w+:\s*", "", line).strip(' "')


def digits(line: str, shortest: int, longest: int) -> str:
    """The first run of digits of such a length; "" if there is none."""
    match = re.search(rf"(?<!\d)\d{{{shortest},{longest}}}(?!\d)", line, re.ASCII)
    return match[0] if match else ""


def imei(lines: list[str]) -> str:
    """The IMEI (or IMEISV) among the lines of AT+CGSN; "" if there is none."""
    return next((found for line in lines if (found := digits(line, 14, 17))), "")
