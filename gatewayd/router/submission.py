"""From what a caller asks for to a message in the spool: the checks, then one commit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gatewayd import crashpoints, msglog
from gatewayd.clock import Clock, iso
from gatewayd.config.destinations import Reach, check_url, named_address
from gatewayd.errors import EncodeError, RequestError
from gatewayd.model import InDoubtPolicy, MessageClass, MessageState
from gatewayd.modems.pdu import count
from gatewayd.router.guards import Reachable
from gatewayd.router.numbers import normalise
from gatewayd.router.routes import Asked, Router, RouterSettings
from gatewayd.spool.accept import Accepted, Idempotency, KeptMessage, NewMessage
from gatewayd.spool.guards import DuplicateGuard
from gatewayd.spool.store import Store
from gatewayd.spool.usage import SegmentLimits

MAX_PRIORITY = 9999  # S4-45, decision 3
MAX_LABEL = 128  # characters of a campaign, an agent
MAX_CLIENT_REF = 255
_NAMES_SHOWN = 20
_CHARACTERS_ASCII, _CHARACTERS = 153, 67  # in one part of many, where only the order of magnitude matters


_PUBLIC = Reach()


@dataclass(frozen=True, slots=True)
class SubmissionSettings:
    """What the checks depend on. `home_country` "": none. `channels` may be pinned to, by name.

    `reach`: which addresses callback URLs may name. `reachable`: which numbers may be sent to. `duplicates` None: the
    same text to the same number is no matter.
    """

    home_country: str = ""
    strict_numbers: bool = False
    allow_premium: bool = False
    max_segments: int = 10
    channels: frozenset[str] = frozenset()
    reach: Reach = _PUBLIC
    default_in_doubt: InDoubtPolicy = InDoubtPolicy.FAIL
    reachable: Reachable = field(default_factory=Reachable)
    router: Router = field(default_factory=lambda: Router(RouterSettings()))
    duplicates: DuplicateGuard | None = None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who submits. `name` is recorded with the message and owns its Idempotency-Keys.

    `may_resend`: may choose the in-doubt policy `resend`, under which somebody may get a message twice. `in_doubt` is
    the policy of what is submitted without one (None: the gateway's). `limits`: how many segments it may use.
    """

    name: str
    may_resend: bool = False
    in_doubt: InDoubtPolicy | None = None
    limits: SegmentLimits | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """What a caller asks for, as given. Times in UTC epoch milliseconds; `channel` "" is not pinned.

    `callback_url` is told what becomes of it, in `callback_format` ("": our JSON; "kannel:MASK": Kannel's).
    """

    to: str
    text: str
    class_: MessageClass = MessageClass.APPLICATION
    priority: int = 0
    not_before: int | None = None
    expires_at: int | None = None
    channel: str = ""
    in_doubt: InDoubtPolicy | None = None
    report: bool = True
    campaign: str = ""
    agent: str = ""
    client_ref: str | None = None
    callback_url: str | None = None
    callback_format: str = ""


@dataclass(frozen=True, slots=True)
class FieldNames:
    """How the caller's interface calls the fields, so that a fault names what the caller wrote."""

    to: str = "to"
    text: str = "text"
    callback_url: str = "callback_url"


API_NAMES = FieldNames()


class Submitter:
    """Checks submissions and keeps them. `settings` may be replaced when the configuration is reloaded."""

    def __init__(self, settings: SubmissionSettings, store: Store, clock: Clock) -> None:
        self.settings = settings
        self._store = store
        self._clock = clock

    def check(self, submission: Submission, caller: Caller, names: FieldNames = API_NAMES) -> NewMessage:
        """The message to keep. Raises RequestError that names the field at fault; nothing is kept then."""
        settings = self.settings
        _check_characters(names.to, submission.to)
        to = normalise(
            submission.to,
            settings.home_country,
            strict=settings.strict_numbers,
            allow_premium=settings.allow_premium,
            field=names.to,
        )
        refusal = settings.reachable.refusal(to)
        if refusal:
            raise RequestError(names.to, refusal)
        alphabet, segments = _plan(names.text, submission.text, settings.max_segments)
        if submission.class_ is MessageClass.SYSTEM:
            raise RequestError("class", "system is for what the gateway sends by itself")
        if not 0 <= submission.priority <= MAX_PRIORITY:
            raise RequestError(
                "priority", f"is {submission.priority}; 0 to {MAX_PRIORITY} is expected, larger goes first"
            )
        self._check_times(submission)
        if submission.channel and submission.channel not in settings.channels:
            raise RequestError("channel", f"there is no channel {submission.channel!r}; {_known(settings.channels)}")
        _check_label("campaign", submission.campaign, MAX_LABEL)
        _check_label("agent", submission.agent, MAX_LABEL)
        if submission.callback_url is not None:
            _check_callback(names.callback_url, submission.callback_url, settings.reach)
        if submission.client_ref is not None:
            if not submission.client_ref:
                raise RequestError("client_ref", "is empty; leave it out if there is none")
            _check_label("client_ref", submission.client_ref, MAX_CLIENT_REF)
        in_doubt = self._in_doubt(submission, caller)
        routed = settings.router.route(
            Asked(
                to,
                submission.class_,
                submission.campaign,
                caller.name,
                max(self._clock.now_ms(), submission.not_before or 0),
                pinned=bool(submission.channel),
            )
        )
        return NewMessage(
            to_given=submission.to,
            to=to,
            text=submission.text,
            alphabet=alphabet,
            segments=segments,
            class_=submission.class_,
            priority=0 if routed.by_entry else submission.priority,
            report=submission.report,
            in_doubt=in_doubt,
            not_before=submission.not_before,
            expires_at=submission.expires_at,
            source=routed.source,
            target=routed.target,
            route=routed.route,
            zone=routed.zone,
            channel=submission.channel,
            campaign=submission.campaign,
            agent=submission.agent,
            client_ref=submission.client_ref,
            callback_url=submission.callback_url,
            callback_format=submission.callback_format,
            api_key=caller.name,
        )

    async def keep(
        self,
        messages: Sequence[NewMessage],
        caller: Caller,
        *,
        idempotency_key: str | None = None,
        fingerprint: bytes = b"",
        answer: Callable[[Sequence[KeptMessage]], str] = lambda kept: "",
    ) -> Accepted:
        """Put checked messages on disk, all or none; they are there when this returns, some perhaps as blocked. Those
        that the guard against duplicates refuses (`KeptMessage.refused`) are not; if it is all, nothing is.

        With an `idempotency_key`, a repetition (same caller, key and `fingerprint`) keeps nothing and gives what
        `answer` made of what was kept the first time. Raises RequestError (409 for a used key with another
        fingerprint, 429 beyond a limit), SpoolError.
        """
        idempotency = None
        if idempotency_key is not None:
            idempotency = Idempotency(caller.name, idempotency_key, fingerprint, answer)
        crashpoints.reach("accept.checked")
        accepted = await self._store.accept(messages, idempotency, caller.limits, self.settings.duplicates)
        crashpoints.reach("accept.kept")
        for kept, message in zip(accepted.kept, messages, strict=False):
            if kept.state is MessageState.TO_PROCESS:
                msglog.accepted(kept.id, message.to, message.segments, caller.name)
            if kept.duplicate_of:
                msglog.duplicate(None if kept.refused else kept.id, kept.duplicate_of, message.to, caller.name)
        return accepted

    async def submit(
        self,
        submissions: Sequence[Submission],
        caller: Caller,
        *,
        idempotency_key: str | None = None,
        fingerprint: bytes = b"",
        answer: Callable[[Sequence[KeptMessage]], str] = lambda kept: "",
    ) -> Accepted:
        """Check and keep, all or none. Raises what `check` and `keep` raise."""
        messages = [self.check(submission, caller) for submission in submissions]
        return await self.keep(
            messages, caller, idempotency_key=idempotency_key, fingerprint=fingerprint, answer=answer
        )

    def _check_times(self, submission: Submission) -> None:
        not_before, expires_at = submission.not_before, submission.expires_at
        if expires_at is None:
            return
        if expires_at <= self._clock.now_ms():
            raise RequestError("expires_at", f"{iso(expires_at)} has passed; a time in the future is expected")
        if not_before is not None and not_before >= expires_at:
            raise RequestError("not_before", f"must be before expires_at ({iso(expires_at)})")

    def _in_doubt(self, submission: Submission, caller: Caller) -> InDoubtPolicy:
        policy = submission.in_doubt or caller.in_doubt or self.settings.default_in_doubt
        if policy is InDoubtPolicy.RESEND and not caller.may_resend:
            raise RequestError(
                "in_doubt",
                "resend may deliver a message twice and needs an API key with in_doubt_resend; else fail or hold",
            )
        return policy


def _plan(field: str, text: str, max_segments: int) -> tuple[str, int]:
    """Alphabet and number of segments of a text that can be sent."""
    _check_characters(field, text)
    if not text.strip():
        raise RequestError(field, "is empty; a text is expected")
    limit = f"at most {max_segments} are allowed"
    try:
        alphabet, segments = count(text)
    except EncodeError:
        about = -(-len(text) // (_CHARACTERS_ASCII if text.isascii() else _CHARACTERS))
        raise RequestError(
            field, f"takes about {about} segments ({len(text)} characters), {limit}", kind="too-long"
        ) from None
    if segments > max_segments:
        said = f"takes {segments} segments ({len(text)} characters in {alphabet.value}), {limit}"
        raise RequestError(field, said, kind="too-long")
    return alphabet.value, segments


def _check_characters(field: str, value: str) -> None:
    """Refuse what is no text: NUL, and halves of a surrogate pair, which no encoding can write."""
    if "\0" in value:
        raise RequestError(field, f"has a NUL character at position {value.index(chr(0)) + 1}; a text has none")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RequestError(
                field, f"has half a surrogate pair (U+{ord(value[error.start]):04X}) at position {error.start + 1}"
            ) from None


def _check_label(field: str, value: str, limit: int) -> None:
    """A word for people and programs: one line, bounded."""
    if not value:
        return
    if len(value) > limit:
        raise RequestError(field, f"has {len(value)} characters, at most {limit} are allowed")
    _check_characters(field, value)
    if not value.isprintable() and any(ord(char) < 32 or 127 <= ord(char) < 160 for char in value):
        raise RequestError(field, "has control characters in it; one line of text is expected")


def _check_callback(field: str, url: str, reach: Reach) -> None:
    """Refuse what could never be called. A host's name is only looked up, and its address judged, at the call."""
    try:
        check_url(url)
    except ValueError as error:
        raise RequestError(field, str(error)) from None
    address = named_address(url)
    refusal = reach.refusal(address) if address is not None else ""
    if refusal:
        raise RequestError(field, f"{refusal}, and the gateway does not call those (http.callbacks)")


def _known(channels: frozenset[str]) -> str:
    if not channels:
        return "the gateway has none"
    names = sorted(channels)
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"there are {', '.join(names[:_NAMES_SHOWN])}{more}"
