"""From the tree of a YAML file to a `Config`, with every fault that is to be found on the way.

Three passes, each of which skips what an earlier one found fault with: the shape (keys, lists and mappings), the values
(the models), and the rules that need more than one value.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from gatewayd.config.addresses import UNKNOWN_COUNTRY, Country, Iccid, ListenAddress, SpoolUrl
from gatewayd.config.destinations import CallUrl, Reach, named_address
from gatewayd.config.models import Config
from gatewayd.config.quota import PERIOD_KEYS
from gatewayd.config.routing_rules import RULES as ROUTING_RULES
from gatewayd.config.routing_rules import schedule_fault
from gatewayd.config.section import Section
from gatewayd.config.shape import Slot, slots
from gatewayd.config.units import Name, near
from gatewayd.config.yaml_lines import Document, Path, Value, shown, walk_items
from gatewayd.errors import Fault

NOT_YET = "not in this version"
_MAX_HINTS = 100  # looking for near words is slow; a file with more unknown keys has another problem


def build(document: Document) -> Config | None:
    """Validate; None where there are faults, which are then in `document.faults`, sorted by line."""
    config = None
    if not document.is_faulty(()):
        tree = _Shape(document).section(Config, document.root, ())
        try:
            config = Config.model_validate(tree, context={"home_country": _home_country(document)})
        except ValidationError as error:
            for detail in error.errors(include_url=False, include_input=False):
                _value_fault(document, detail)
        for rule in _RULES:
            rule(document)
    document.faults = sorted_faults(document.faults)
    return None if document.faults else config


def sorted_faults(faults: list[Fault]) -> list[Fault]:
    """By line, what has none first; otherwise in the order they were found."""
    return sorted(faults, key=lambda fault: fault.line or 0)


class _Shape:
    """Checks keys and nesting, and gives a copy without what is at fault."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._hints = 0
        self._slots: dict[type[Section], dict[str, Slot]] = {}

    def section(self, section: type[Section], value: Value, path: Path) -> dict[str, object]:
        if self._document.is_faulty(path) or value is None:  # None: all its keys are commented out
            return {}
        if not isinstance(value, dict):
            kind = "a list" if isinstance(value, list) else shown(value)
            example = next(iter(self._keys(section)))
            self._document.fault(path, f"keys and values (such as {example}: …) are expected, not {kind}")
            return {}
        for key, words in section.later_values.items():
            word = value.get(key)
            if isinstance(word, str) and word in words:
                self._document.fault((*path, key), f"{word} is {NOT_YET}")
                self._document.faulty.add(path)  # its other keys would only look wrong
                return {}
        result: dict[str, object] = {}
        for key, child in value.items():
            slot = self._keys(section).get(key)
            if slot is None:
                self._unknown(section, key, (*path, key))
            elif not self._document.is_faulty((*path, key)):
                self._slot(slot, child, (*path, key), result)
        return result

    def _keys(self, section: type[Section]) -> dict[str, Slot]:
        if section not in self._slots:
            self._slots[section] = slots(section)
        return self._slots[section]

    def _slot(self, slot: Slot, value: Value, path: Path, result: dict[str, object]) -> None:
        if slot.many:
            if value is None:
                value = []
            if not isinstance(value, list):
                self._document.fault(path, f"a list is expected ([…], or lines beginning with -), not {_kind(value)}")
                return
            items = enumerate(value)
            if slot.section is not None:
                result[slot.key] = [self._item(slot.section, item, (*path, index)) for index, item in items]
            else:
                result[slot.key] = [self._scalar(slot, item, (*path, index)) for index, item in items]
        elif slot.section is not None and slot.named:
            result[slot.key] = self._named(slot.section, value, path)
        elif slot.section is not None:
            result[slot.key] = self.section(slot.section, value, path)
        else:
            result[slot.key] = self._scalar(slot, value, path)

    def _named(self, section: type[Section], value: Value, path: Path) -> dict[str, object]:
        """Sections by their names, which the file chooses."""
        if not isinstance(value, dict):
            if value is not None:
                kind = "a list" if isinstance(value, list) else shown(value)
                self._document.fault(path, f"names, each with keys and values, are expected, not {kind}")
            return {}
        for name in value:
            try:
                Name().parse(name)
            except ValueError as error:
                self._document.fault((*path, name), str(error))
        return {
            name: self._item(section, item, (*path, name))
            for name, item in value.items()
            if not self._document.is_faulty((*path, name))
        }

    def _item(self, section: type[Section], item: Value, path: Path) -> dict[str, object]:
        if item is None:
            what = "the -" if isinstance(path[-1], int) else "it"
            self._document.fault(path, f"is empty: give its keys or remove {what}")
        return self.section(section, item, path)

    def _scalar(self, slot: Slot, value: Value, path: Path) -> Value:
        if value is None and not self._document.is_faulty(path):
            assert slot.format is not None
            self._document.fault(path, f"has no value: give {slot.format.wording} or remove it")
        return value

    def _unknown(self, section: type[Section], key: str, path: Path) -> None:
        if key in section.later:
            self._document.fault(path, NOT_YET)
            return
        self._hints += 1
        hint = ""
        if self._hints <= _MAX_HINTS:
            if key == "<<":
                hint = " (merging mappings is not supported: write the keys out)"
            else:
                hint = section.hint(key) or self._elsewhere(section, key) or near(key, list(self._keys(section)))
        self._document.fault(path, f"unknown key{hint}")

    def _elsewhere(self, section: type[Section], key: str) -> str:
        """The key may be right, but one level too high."""
        for slot in self._keys(section).values():
            if slot.section is not None and not (slot.many or slot.named) and key in self._keys(slot.section):
                return f" here: it belongs under {slot.key}"
        return ""


def _kind(value: Value) -> str:
    return "keys and values" if isinstance(value, dict) else shown(value)


def _value_fault(document: Document, detail: ErrorDetails) -> None:
    path: Path = detail["loc"]
    context: dict[str, Any] = detail.get("ctx", {})
    if document.is_faulty(path):
        return
    reason = detail["msg"]
    if detail["type"] == "missing":
        reason = f"is required: {_slot_at(path).wording}"
    elif detail["type"] == "value_error":
        reason = str(context["error"])
    elif detail["type"] == "too_short":
        if _length(document.root, path) >= context["min_length"]:
            return  # only what is not at fault was counted
        reason = f"at least {context['min_length']} must be given, not {context['actual_length']}"
    elif detail["type"] == "too_long":
        reason = f"at most {context['max_length']} can be given"
    document.fault(path, reason)


def _length(value: Any, path: Path) -> int:
    """How many items the list at `path` has in the file."""
    for step in path:
        value = value[step]
    return len(value or ())


def _slot_at(path: Path) -> Slot:
    section: type[Section] = Config
    slot: Slot | None = None
    for step in path:
        if isinstance(step, str) and slot is not None and slot.named:
            slot = None  # the name
        elif isinstance(step, str):
            slot = slots(section)[step]
            section = slot.section or section
    assert slot is not None
    return slot


# What follows reads the tree, not the models, so that it also works beside faults of other values.


def _get(value: Value, key: str) -> Value:
    return value.get(key) if isinstance(value, dict) else None


def _home_country(document: Document) -> str | None:
    given = _get(_get(document.root, "gateway"), "home_country")
    if document.is_faulty(("gateway", "home_country")):
        return UNKNOWN_COUNTRY
    try:
        return Country().parse(given) if given is not None else None
    except ValueError:
        return UNKNOWN_COUNTRY


def _items(document: Document, key: str) -> Iterator[tuple[Path, dict[str, Value]]]:
    for index, item in walk_items(_get(document.root, key)):
        if (key, index) not in document.faulty:
            yield (key, index), item


def _unique(list_key: str, key: str, normal: Callable[[str], str], why: str) -> Callable[[Document], None]:
    def rule(document: Document) -> None:
        first: dict[str, Path] = {}
        for path, item in _items(document, list_key):
            value = item.get(key)
            if not isinstance(value, str) or document.is_faulty((*path, key)):
                continue
            other = first.setdefault(normal(value), path)
            if other != path:
                line = document.line((*other, key))
                document.fault((*path, key), f"{shown(value)} is {list_key}[{other[1]}] (line {line}) already: {why}")

    return rule


def _iccid(text: str) -> str:
    try:
        return Iccid().parse(text)
    except ValueError:
        return text


def _sim_identity(document: Document) -> None:
    for path, item in _items(document, "sims"):
        if "iccid" not in item and "imsi" not in item:
            document.fault(path, "iccid or imsi is required, or nothing tells which SIM it is")


def _exposed(document: Document) -> None:
    http = _get(document.root, "http")
    listen = _get(http, "listen")
    if not isinstance(listen, str) or document.is_faulty(("http", "listen")):
        return
    safe = ListenAddress().parse(listen).loopback or (isinstance(http, dict) and "tls" in http)
    if not safe and _get(http, "insecure_http") != "true" and not document.is_faulty(("http", "insecure_http")):
        reason = (
            "can be reached from other machines without TLS: give http.tls a cert_file and a key_file, set "
            "insecure_http: true if that is meant, or listen on 127.0.0.1 behind a proxy with TLS"
        )
        document.fault(("http", "listen"), reason)


def _spool_password(document: Document) -> None:
    spool = _get(document.root, "spool")
    url = _get(spool, "url")
    if not isinstance(url, str) or document.is_faulty(("spool", "url")) or _get(spool, "password_file") is None:
        return
    if SpoolUrl().parse(url).startswith("sqlite:"):
        document.fault(("spool", "password_file"), "is only for postgresql://: remove it")


def _alert_groups(document: Document) -> None:
    first: dict[str, Path] = {}
    enabled = [item.get("name") for _, item in _items(document, "channels") if item.get("enabled") != "false"]
    groups = _get(_get(_get(document.root, "http"), "alertmanager"), "groups")
    for index, group in walk_items(groups):
        path: Path = ("http", "alertmanager", "groups", index)
        name, channel = group.get("name"), group.get("channel")
        if isinstance(name, str) and first.setdefault(name, path) != path:
            line = document.line((*first[name], "name"))
            document.fault((*path, "name"), f"{shown(name)} is that of line {line} already: names must differ")
        if isinstance(channel, str) and channel not in enabled and not document.is_faulty(("channels",)):
            document.fault((*path, "channel"), f"{shown(channel)} is no channel that is there and enabled")


def _quotas(document: Document) -> None:
    """A limit that a longer period's makes unreachable is a slip of the pen, and which of the two nobody can tell."""
    for list_key in ("sims", "channels"):
        for path, item in _items(document, list_key):
            quota = _get(item, "quota")
            shorter = ""
            for key in PERIOD_KEYS:
                limit, place = _get(quota, key), (*path, "quota", key)
                if not isinstance(limit, str) or not limit.lstrip("+").isdecimal() or document.is_faulty(place):
                    continue
                if shorter and int(limit) < int(str(_get(quota, shorter))):
                    line = document.line((*path, "quota", shorter))
                    reason = f"{limit} is less than {shorter} ({_get(quota, shorter)}, line {line}), which is never"
                    document.fault(place, f"{reason} reached then: a larger number is expected, or no {shorter}")
                shorter = key


def _schedules(document: Document) -> None:
    for list_key in ("channels", "sims"):
        for path, item in _items(document, list_key):
            schedule_fault(document, (*path, "schedule"), item.get("schedule"))


def _webhook_targets(document: Document) -> None:
    """What can be said of an address without asking for a name's: else the first event would be a dead letter."""
    for path, item in _items(document, "webhooks"):
        url = item.get("url")
        if not isinstance(url, str) or document.is_faulty((*path, "url")):
            continue
        address = named_address(CallUrl().parse(url))
        reason = address and Reach(private=item.get("allow_private") == "true").refusal(address)
        if reason:
            document.fault((*path, "url"), f"{reason}: set allow_private: true if that is meant")


_RULES: tuple[Callable[[Document], None], ...] = (
    _unique("channels", "name", str, "names must differ"),
    _unique("channels", "port", posixpath.normpath, "a port can have one channel"),
    _unique("sims", "iccid", _iccid, "a SIM can be listed once"),
    _unique("sims", "imsi", str, "a SIM can be listed once"),
    _sim_identity,
    _exposed,
    _alert_groups,
    _spool_password,
    _quotas,
    _unique("webhooks", "name", str, "names must differ"),
    _unique("routes", "name", str, "names must differ"),
    _unique("dialers", "name", str, "names must differ"),
    *ROUTING_RULES,
    _schedules,
    _webhook_targets,
)
