"""What is different between two configurations, for whoever reads the log after a reload."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pydantic import BaseModel

from gatewayd.config import Config

AT_START = (
    "gateway.instance",
    "gateway.control_socket",
    "spool.url",
    "spool.password_file",
    "http.listen",
    "http.max_body_octets",
    "http.kannel.enabled",
    "http.kannel.path",
)
"""What is only looked at when the daemon starts."""


def differences(before: Config, after: Config) -> list[str]:
    """The key paths whose values differ, but for those that need a restart; items of lists by their names, and one that
    came or went in one line.
    """
    old, new = _flat(before), _flat(after)
    items = {_item(path) for path in old}, {_item(path) for path in new}
    found = []
    for path in _different(old, new):
        item = _item(path)
        if item and item not in items[1]:
            found.append(f"{item}: removed")
        elif item and item not in items[0]:
            found.append(f"{item}: added")
        elif path not in AT_START:
            found.append(_shown(path))
    return list(dict.fromkeys(found))


def needs_restart(before: Config, after: Config) -> list[str]:
    """The key paths that differ and take effect at the next start only."""
    found = [path for path in _different(_flat(before), _flat(after)) if path in AT_START]
    if (before.http.tls is None) != (after.http.tls is None):
        found.append("http.tls")
    return [_shown(path) for path in found]


def _different(before: Mapping[str, object], after: Mapping[str, object]) -> Iterable[str]:
    paths = list(dict.fromkeys((*before, *after)))
    missing = object()
    return [path for path in paths if before.get(path, missing) != after.get(path, missing)]


def _flat(value: object, path: str = "") -> dict[str, object]:
    """Every value by its key path; a list's items by their names, where they have any."""
    if isinstance(value, BaseModel):
        found: dict[str, object] = {}
        for name in type(value).model_fields:
            found |= _flat(getattr(value, name), f"{path}.{name}" if path else name)
        return found
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        found = {}
        for index, item in enumerate(value):
            found |= _flat(item, f"{path}[{getattr(item, 'name', None) or index}]")
        return found
    return {path: value}


def _item(path: str) -> str:
    """The item of a list that a value belongs to; "" for none."""
    head, bracket, _ = path.rpartition("]")
    return head + bracket


def _shown(path: str) -> str:
    """As the file has it: keys in YAML carry no unit."""
    for unit in ("_s", "_octets"):
        path = path.removesuffix(unit)
    return path
