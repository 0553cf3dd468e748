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
    "spool.witness",
    "http.listen",
    "http.max_body",
    "http.kannel.enabled",
    "http.kannel.path",
)
"""What is only looked at when the daemon starts."""


def differences(before: Config, after: Config) -> list[str]:
    """The key paths whose values differ, but for those that need a restart; items of lists and of mappings by their
    names, and one that came or went in one line.
    """
    old, new = _flat(before), _flat(after)
    items = [{item for path in flat for item in _items(path)} for flat in (old, new)]
    found = []
    for path in _different(old, new):
        gone = next((item for item in _items(path) if item not in items[1]), "")
        come = next((item for item in _items(path) if item not in items[0]), "")
        if gone:
            found.append(f"{gone}: removed")
        elif come:
            found.append(f"{come}: added")
        elif path not in AT_START:
            found.append(path)
    for key in ("channels", "routes"):  # dial strings count channels, and the first route that matches counts
        orders = [[item.name for item in getattr(config, key)] for config in (before, after)]
        kept = [[name for name in order if name in orders[0] and name in orders[1]] for order in orders]
        if kept[0] != kept[1]:
            found.append(f"{key}: in another order")
    return list(dict.fromkeys(found))


def needs_restart(before: Config, after: Config) -> list[str]:
    """The key paths that differ and take effect at the next start only."""
    found = [path for path in _different(_flat(before), _flat(after)) if path in AT_START]
    if (before.http.tls is None) != (after.http.tls is None):
        found.append("http.tls")
    return found


def _different(before: Mapping[str, object], after: Mapping[str, object]) -> Iterable[str]:
    paths = list(dict.fromkeys((*before, *after)))
    missing = object()
    return [path for path in paths if before.get(path, missing) != after.get(path, missing)]


def _flat(value: object, path: str = "") -> dict[str, object]:
    """Every value by its key path, as the file has it; a list's items by their names, where they have any."""
    if isinstance(value, BaseModel):
        found: dict[str, object] = {}
        for name, info in type(value).model_fields.items():
            key = info.validation_alias if isinstance(info.validation_alias, str) else name
            found |= _flat(getattr(value, name), f"{path}.{key}" if path else key)
        return found
    if isinstance(value, Mapping):
        found = {}
        for name, item in value.items():
            found |= _flat(item, f"{path}[{name}]")
        return found
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        found = {}
        for index, item in enumerate(value):
            found |= _flat(item, f"{path}[{getattr(item, 'name', None) or index}]")
        return found
    return {path: value}


def _items(path: str) -> list[str]:
    """The items of lists and mappings that a value belongs to, the outermost first."""
    return [path[: place + 1] for place, letter in enumerate(path) if letter == "]"]
