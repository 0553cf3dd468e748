"""What outlives a modem's session: SIM cards and message stores."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gatewayd.modems.simulator.modem import Modem

PIN_TRIES = 3
PUK_TRIES = 10


class Stat(IntEnum):
    """<stat> in PDU mode. Source: 3GPP TS 27.005 §3.1."""

    REC_UNREAD = 0
    REC_READ = 1
    STO_UNSENT = 2
    STO_SENT = 3
    ALL = 4


@dataclass(slots=True)
class Slot:
    """One stored message: the whole PDU as hex, SMS centre's address included, and the TPDU's length in octets."""

    pdu: str
    length: int
    stat: Stat = Stat.REC_UNREAD


@dataclass(slots=True)
class Store:
    """A message store with `size` places, numbered from `base`."""

    name: str
    size: int
    base: int = 1
    slots: dict[int, Slot] = field(default_factory=dict)

    @property
    def is_full(self) -> bool:
        return len(self.slots) >= self.size

    def put(self, slot: Slot) -> int | None:
        """Store in the first free place and return its index; None if there is none."""
        if self.is_full:
            return None
        index = next(index for index in range(self.base, self.base + self.size) if index not in self.slots)
        self.slots[index] = slot
        return index


@dataclass(slots=True, eq=False)
class SimCard:
    """A SIM. `number` is E.164 with `+`; `pin` "" means that the PIN lock is off."""

    iccid: str
    imsi: str
    number: str
    store: Store
    smsc: str
    pin: str = ""
    puk: str = "12345678"
    pin_tries: int = PIN_TRIES
    puk_tries: int = PUK_TRIES
    verified: bool = False
    next_mr: int = 0
    modem: Modem | None = None

    def power_up(self) -> None:
        """A SIM asks for its PIN once per power-up."""
        self.verified = False

    @property
    def lock(self) -> str:
        """What AT+CPIN? says: READY, SIM PIN or SIM PUK."""
        if self.pin_tries == 0:
            return "SIM PUK"
        return "READY" if self.verified or not self.pin else "SIM PIN"

    def enter_pin(self, pin: str) -> bool:
        """One try at the PIN; False if it was wrong."""
        if pin == self.pin:
            self.pin_tries = PIN_TRIES
            self.verified = True
            return True
        self.pin_tries -= 1
        return False

    def enter_puk(self, puk: str, pin: str) -> bool:
        """One try at the PUK, which sets a new PIN; False if it was wrong."""
        if puk == self.puk and self.puk_tries > 0:
            self.puk_tries = PUK_TRIES
            self.pin = pin
            return self.enter_pin(pin)
        self.puk_tries = max(0, self.puk_tries - 1)
        return False

    def take_mr(self) -> int:
        """The TP-MR of the next TPDU: 0..255, counted by the SIM."""
        mr = self.next_mr
        self.next_mr = (mr + 1) % 256
        return mr


def with_check_digit(digits: str) -> str:
    """`digits` and their Luhn check digit, which IMEI and ICCID end with."""
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if position % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return digits + str(-total % 10)
