"""What an inbound message means: its number, its text, its opt-out verdict, and the answer to it. Pure.

Called by the spool inside the transaction that keeps the message (`spool.inbound.Intake`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import phonenumbers

from gatewayd.errors import RequestError
from gatewayd.model import MessageClass
from gatewayd.modems.pdu import Alphabet, TypeOfNumber, UserData, count, join_text
from gatewayd.modems.pdu import dcs as coding
from gatewayd.router.numbers import normalise
from gatewayd.router.optout import Intent, Pack, Tier, classify
from gatewayd.spool.accept import NewMessage
from gatewayd.spool.intake import TEXT, InboundMessage, Piece, Ruling
from gatewayd.spool.reassemble import in_order

GAP = "[…]"  # in a partial text, where parts lack
REPLY_PRIORITY = 9999
REPLY_WITHIN_MS = 3_600_000  # later than that, nobody knows any more what it answers


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """`packs` in the order they are asked. `home_country` "": none. `name` and `contact` stand in answers."""

    packs: tuple[Pack, ...] = ()
    home_country: str = ""
    reassembly_timeout_ms: int = 3_600_000
    confirm: bool = True
    no_confirm_countries: frozenset[str] = frozenset()
    name: str = ""
    contact: str = ""


class Intake:
    """Implements `spool.inbound.Intake`."""

    def __init__(self, settings: IntakeSettings) -> None:
        self._settings = settings

    @property
    def reassembly_timeout_ms(self) -> int:
        return self._settings.reassembly_timeout_ms

    def number(self, originator: str, ton: int | None, recipient: str) -> str:
        """E.164 or a short code; "" for a name, or digits that are no number.

        National digits are of the gateway's home country, or without one of the SIM's own.
        """
        if ton == TypeOfNumber.ALPHANUMERIC:
            return ""
        home_country = self._settings.home_country or country_of(recipient)
        try:
            return normalise(originator, home_country, strict=False, allow_premium=True)
        except RequestError:
            return ""

    def text(self, pieces: Sequence[Piece], total: int) -> str | None:
        """The text, joined over the parts' borders; None where any part is data."""
        parts = {piece.seq: (_user_data(piece), piece) for piece in pieces}
        if any(user_data.alphabet is Alphabet.DATA8 for user_data, _ in parts.values()):
            return None
        if len(parts) == total:
            return join_text([parts[seq][0] for seq in sorted(parts)])
        return in_order(_runs(parts), total, GAP)

    def judge(self, message: InboundMessage) -> Ruling:
        """The verdict on the text, and the answer if it is one that is acted on.

        A partial text is never surely an opt-out: what lacks may say otherwise.
        """
        if message.kind != TEXT or message.text is None:
            return Ruling()
        verdict = classify(message.text, self._settings.packs)
        tier = Tier.B if message.partial and verdict.tier is Tier.A else verdict.tier
        acts = not message.partial and (tier is Tier.A or verdict.intent in (Intent.OPT_IN, Intent.HELP))
        reply = self._reply(message, verdict.intent, verdict.language) if acts else None
        return Ruling(
            verdict.intent.value, tier.value, verdict.rule, verdict.language, verdict.version, acts=acts, reply=reply
        )

    def _reply(self, message: InboundMessage, intent: Intent, language: str) -> NewMessage | None:
        """The answer, to a real number only: a short code that is answered may cost, or answer in turn."""
        settings = self._settings
        if not message.number.startswith("+"):
            return None
        pack = next(pack for pack in settings.packs if pack.language == language)
        if intent is Intent.HELP:
            if not settings.name:
                return None
            words = pack.reply("help")
            contact = pack.reply("contact").replace("{contact}", settings.contact) if settings.contact else ""
            text = " ".join(part for part in (contact, words) if part)
        else:
            if not settings.confirm or country_of(message.number) in settings.no_confirm_countries:
                return None
            text = pack.reply(intent.value)
        text = f"{settings.name}: {text}" if settings.name else text
        alphabet, segments = count(text)
        return NewMessage(
            to_given=message.number,
            to=message.number,
            text=text,
            alphabet=alphabet.value,
            segments=segments,
            class_=MessageClass.SYSTEM,
            priority=REPLY_PRIORITY,
            expires_at=message.received_at + REPLY_WITHIN_MS,
            channel=message.channel,
            api_key="gateway",
        )


def country_of(number: str) -> str:
    """The country of an E.164 number (ISO 3166); "" if it has none."""
    try:
        return phonenumbers.region_code_for_number(phonenumbers.parse(number)) or ""
    except phonenumbers.NumberParseException:
        return ""


def _user_data(piece: Piece) -> UserData:
    alphabet = coding.decode(piece.dcs).alphabet
    return UserData(alphabet, piece.text, piece.data, (), piece.dcs)


def _runs(parts: dict[int, tuple[UserData, Piece]]) -> dict[int, str]:
    """The texts of the parts there are; parts that follow each other are decoded together, under the first."""
    texts: dict[int, str] = {}
    run: list[int] = []
    for seq in sorted(parts):
        if run and seq != run[-1] + 1:
            texts |= _joined(run, parts)
            run = []
        run.append(seq)
    return texts | _joined(run, parts)


def _joined(run: list[int], parts: dict[int, tuple[UserData, Piece]]) -> dict[int, str]:
    joined = join_text([parts[seq][0] for seq in run])
    return {seq: joined if seq == run[0] else "" for seq in run}
