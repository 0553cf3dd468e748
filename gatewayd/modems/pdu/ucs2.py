"""UCS2 user data, which every phone since the first emoji sends and reads as UTF-16, big-endian.

Source: 3GPP TS 23.038 §6.2.3; UTF-16: RFC 2781.
"""

from __future__ import annotations


def encode(text: str) -> bytes:
    """Text as UTF-16BE octets, two for each unit. A lone surrogate becomes U+FFFD; two that are a pair become one."""
    try:
        return text.encode("utf-16-be")
    except UnicodeEncodeError:
        return decode(text.encode("utf-16-be", "surrogatepass")).encode("utf-16-be")


def decode(octets: bytes) -> str:
    """UTF-16BE octets as text. Never fails: a lone surrogate becomes U+FFFD, an odd last octet is dropped.

    A pair may be cut by the border between two parts: join the parts first (`userdata.join_text`).
    """
    return octets[: len(octets) & ~1].decode("utf-16-be", "replace")


def units(text: str) -> int:
    """How many 16-bit units `text` takes."""
    return len(text.encode("utf-16-be", "surrogatepass")) // 2
