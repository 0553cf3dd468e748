"""The signature of what we tell others, so that they know it comes from us and is not an old one. Pure.

Source: Standard Webhooks specification 1.0 (standardwebhooks.com), "Signature scheme": symmetric, `v1`. Over the id,
the time stamp and the body, joined by full stops.
"""

from __future__ import annotations

import base64
import hashlib
import hmac


def headers(key: bytes | None, event_id: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The headers of a call; `timestamp_s` is UTC epoch seconds. Without a key nothing is signed."""
    result = {"webhook-id": event_id, "webhook-timestamp": str(timestamp_s)}
    if key is not None:
        result["webhook-signature"] = sign(key, event_id, timestamp_s, body)
    return result


def sign(key: bytes, event_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of `webhook-signature`."""
    signed = hmac.new(key, f"{event_id}.{timestamp_s}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"
