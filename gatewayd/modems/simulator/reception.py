"""What an emulated modem does with a TPDU from the network: where it goes by AT+CNMI, and who acknowledges it.

Source: 3GPP TS 27.005 §3.4.1 (routing), §3.4.4 (+CNMA).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gatewayd.modems.simulator.interfaces import Handle, Intake, cms
from gatewayd.modems.simulator.sim import Slot

if TYPE_CHECKING:
    from gatewayd.modems.simulator.modem import Modem

ACK_LIMIT_S = 15.0  # then the modem gives up on the program
MAX_HELD = 50  # indications kept while <mode> is 0


class Reception:
    """The receiving side of one modem."""

    def __init__(self, modem: Modem) -> None:
        self._modem = modem
        self._timer: Handle | None = None
        self._held: list[str] = []
        self._lacked_room = False
        self.ack_limit_s = ACK_LIMIT_S

    def deliver(self, pdu: str, length: int, *, report: bool, message_class: int | None) -> tuple[Intake, str]:
        """Take a PDU (hex, SMS centre's address included; `length` octets of TPDU).

        Returns what became of it, and in words how it reached the program ("SM:3", "+CMT", "dropped").
        """
        if not self._modem.is_reachable():
            return Intake.UNREACHABLE, ""
        if self._timer is not None:
            return Intake.PENDING, ""
        mode, mt, _, ds, _ = self._modem.settings.cnmi
        if report:
            if ds == 0:
                return Intake.TAKEN, "dropped"
            if ds == 1 and mode:
                return self._direct("+CDS", f"+CDS: {length}\r\n{pdu}")
            in_sr = self._modem.store("SR") is not None
            return self._keep("SR" if in_sr else self._modem.settings.mem[2], pdu, length, "+CDSI")
        direct = mt == 2 or (mt == 3 and message_class == 3) or (mt == 1 and message_class == 0)
        if direct and mode and message_class != 2:
            return self._direct("+CMT", f"+CMT: ,{length}\r\n{pdu}")
        store = "SM" if message_class == 2 else self._modem.settings.mem[2]
        return self._keep(store, pdu, length, "+CMTI" if mt else "")

    def _direct(self, how: str, text: str) -> tuple[Intake, str]:
        self._modem.urc(text)
        if self._modem.settings.csms == 0:
            return Intake.TAKEN, how
        self._timer = self._modem.timers.call_later(self.ack_limit_s, self._give_up)
        return Intake.PENDING, how

    def _keep(self, name: str, pdu: str, length: int, indication: str) -> tuple[Intake, str]:
        store = self._modem.store(name)
        index = store.put(Slot(pdu, length)) if store is not None else None
        if store is None or index is None:
            self._lacked_room = True
            return Intake.FULL, ""
        if indication:
            self._indicate(f'{indication}: "{name}",{index}')
        if store.is_full and self._modem.personality.full:
            self._modem.urc(self._modem.personality.full.format(store=name))
        return Intake.TAKEN, f"{name}:{index}"

    def _indicate(self, text: str) -> None:
        if self._modem.settings.cnmi[0]:
            self._modem.urc(text)
        else:
            self._held = [*self._held, text][-MAX_HELD:]

    def settings_changed(self) -> None:
        """AT+CNMI: what was held is flushed or, with <bfr> 1, thrown away."""
        mode, *_, bfr = self._modem.settings.cnmi
        if mode:
            held, self._held = self._held, []
            for text in held if bfr == 0 else []:
                self._modem.urc(text)

    def acknowledge(self, accepted: bool = True) -> None:
        """AT+CNMA. Raises CMS 340 if nothing waits for it."""
        if self._timer is None or self._modem.sim is None:
            raise cms(340)
        self._timer.cancel()
        self._timer = None
        if accepted:
            self._modem.network.acknowledged(self._modem.sim)
        else:
            self._modem.network.unacknowledged(self._modem.sim)

    def _give_up(self) -> None:
        """No +CNMA in time: RP-ERROR, and nothing is routed to the program any more (3GPP TS 27.005 §3.4.4)."""
        self._timer = None
        self._modem.settings.cnmi[1] = 0
        self._modem.settings.cnmi[3] = 0
        if self._modem.sim is not None:
            self._modem.network.unacknowledged(self._modem.sim)

    def room_made(self) -> None:
        """A message was deleted: if one was refused for lack of room, tell the network that there is some."""
        if self._lacked_room and self._modem.sim is not None:
            self._lacked_room = False
            self._modem.network.pump(self._modem.sim)

    def forget(self) -> None:
        """Power or SIM is lost."""
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            if self._modem.sim is not None:
                self._modem.network.unacknowledged(self._modem.sim)
