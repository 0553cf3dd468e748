"""The configuration of webhooks and callbacks, and the files with their secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from gatewayd.config import check, load, parse
from gatewayd.config.destinations import Reach
from gatewayd.errors import ConfigError
from gatewayd.router.endpoints import Manner, callback_manner, subscriptions, webhook_settings
from gatewayd.spool.events import Subscription

LEAST = """\
spool: {url: "sqlite:////var/lib/gatewayd/spool.db"}
http: {callbacks: {allowed_networks: [10.1.0.0/16], secret_file: SECRET, timeout: 3s, give_up_after: 2h}}
channels: []
webhooks:
  - {name: crm, url: "https://crm.example.com/x?y=1", secret_file: SECRET, events: [message.*, inbound.received]}
  - {name: old, url: "http://10.0.0.5:8000", allow_private: true, timeout: 500ms, give_up_after: 1h, enabled: false}
"""


def written(folder: Path, secret: str = "whsec_AAEC\n", mode: int = 0o600) -> Path:
    file = folder / "secret"
    file.write_text(secret)
    file.chmod(mode)
    path = folder / "gatewayd.yaml"
    path.write_text(LEAST.replace("SECRET", str(file)))
    return path


def test_what_is_configured_is_what_is_done(tmp_path: Path) -> None:
    config = load(written(tmp_path))
    crm, old = webhook_settings(config.webhooks)
    assert (crm.endpoint, crm.url, crm.enabled) == ("webhook:crm", "https://crm.example.com/x?y=1", True)
    assert crm.manner == Manner(bytes([0, 1, 2]), Reach(), 10.0, 3 * 86_400_000)
    assert old.manner == Manner(None, Reach(private=True), 0.5, 3_600_000)
    assert subscriptions([crm, old]) == (Subscription("webhook:crm", ("message.*", "inbound.received")),)
    manner = callback_manner(config.http.callbacks)
    assert (manner.key, manner.timeout_s, manner.give_up_ms) == (bytes([0, 1, 2]), 3.0, 7_200_000)
    assert list(map(str, manner.reach.networks)) == ["10.1.0.0/16"]


def test_without_a_word_callbacks_go_to_public_addresses_only() -> None:
    config = parse(LEAST[: LEAST.index("http:")] + "http: {}\nchannels: []\n")
    assert config.webhooks == ()
    assert callback_manner(config.http.callbacks) == Manner()


def test_every_event_is_the_default() -> None:
    text = LEAST[: LEAST.index("http:")] + 'http: {}\nchannels: []\nwebhooks: [{name: a, url: "https://a.example"}]\n'
    (webhook,) = webhook_settings(parse(text).webhooks)
    assert webhook.events == ("*",)


@pytest.mark.parametrize(
    ("secret", "mode", "reason"),
    [
        ("whsec_!\n", 0o600, "base64 is expected after whsec_"),
        ("", 0o600, "one line of text is expected"),
        ("sesame\n", 0o644, "everybody can read or change it (mode 0644)"),
    ],
)
def test_bad_secrets_are_found_before_they_are_needed(tmp_path: Path, secret: str, mode: int, reason: str) -> None:
    path = written(tmp_path, secret, mode)
    found = check(path)
    assert [fault.path for fault in found] == ["http.callbacks.secret_file", "webhooks[0].secret_file"]
    assert all(reason in fault.reason for fault in found)
    with pytest.raises(ConfigError) as caught:
        webhook_settings(load(path).webhooks)
    (fault,) = caught.value.faults
    assert fault.path == "webhooks[0].secret_file"
    assert reason in fault.reason


def test_a_missing_secret_is_found(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "secret").unlink()
    assert len(check(path)) == 2
