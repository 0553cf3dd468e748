"""Who is told of events, in plain values: configured webhooks, and what holds for messages' own callbacks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from gatewayd.config import Callbacks, Webhook, read_signing_key
from gatewayd.config.destinations import Reach
from gatewayd.errors import ConfigError, Fault
from gatewayd.spool.events import Subscription, webhook_endpoint

_PUBLIC = Reach()


@dataclass(frozen=True, slots=True)
class Manner:
    """How an endpoint is called: the key its requests are signed with (None: not signed), where it may be, how long a
    call may take, and for how long an event is tried.
    """

    key: bytes | None = None
    reach: Reach = _PUBLIC
    timeout_s: float = 10.0
    give_up_ms: int = 86_400_000


_PLAIN = Manner()


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """A configured webhook. `events` as in spool.events.Subscription; one that is not `enabled` is told of nothing."""

    name: str
    url: str
    manner: Manner = _PLAIN
    events: tuple[str, ...] = ("*",)
    enabled: bool = True

    @property
    def endpoint(self) -> str:
        return webhook_endpoint(self.name)


def webhook_settings(webhooks: Iterable[Webhook]) -> tuple[WebhookSettings, ...]:
    """The webhooks of a configuration. Raises ConfigError if the file of a secret cannot be used."""
    return tuple(
        WebhookSettings(
            webhook.name,
            webhook.url,
            Manner(
                _key(webhook.secret_file, f"webhooks[{index}]"),
                Reach(private=webhook.allow_private),
                webhook.timeout_s,
                int(webhook.give_up_after_s * 1000),
            ),
            webhook.events,
            webhook.enabled,
        )
        for index, webhook in enumerate(webhooks)
    )


def callback_manner(callbacks: Callbacks) -> Manner:
    """How messages' own callbacks are called. Raises ConfigError if the file of the secret cannot be used."""
    return Manner(
        _key(callbacks.secret_file, "http.callbacks"),
        Reach(callbacks.allow_private, callbacks.allowed_networks),
        callbacks.timeout_s,
        int(callbacks.give_up_after_s * 1000),
    )


def subscriptions(webhooks: Iterable[WebhookSettings]) -> tuple[Subscription, ...]:
    """What the store is to write down for whom."""
    return tuple(Subscription(webhook.endpoint, webhook.events) for webhook in webhooks if webhook.enabled)


def _key(path: Path | None, place: str) -> bytes | None:
    if path is None:
        return None
    try:
        return read_signing_key(path)
    except ConfigError as error:
        reason = f"{error.source}: {'; '.join(fault.reason for fault in error.faults)}"
        raise ConfigError([Fault(f"{place}.secret_file", reason)]) from error
