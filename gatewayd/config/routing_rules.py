"""What holds between routes, dialers, channels, SIMs and schedules: no reference dangles, no port is out of range.

Like the other rules (see `tree`) these read the tree of the file, so that they also work beside faults of other values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from gatewayd.config import dialstring
from gatewayd.config.models import Config
from gatewayd.config.routing import Dialer, Match, Route
from gatewayd.config.units import near
from gatewayd.config.yaml_lines import Document, Path, Value, shown, walk_items

_NAMES_SHOWN = 20
_WEIGHTED = "weighted"


def schedule_fault(document: Document, path: Path, value: Value) -> None:
    """Note a fault where `value`, which stands at `path`, names a schedule that is not there."""
    if isinstance(value, str) and not document.is_faulty(path) and not document.is_faulty(("schedules",)):
        schedules = _get(document.root, "schedules")
        _known(document, path, value, "schedule", list(schedules) if isinstance(schedules, dict) else [])


def _get(value: Value, key: str) -> Value:
    return value.get(key) if isinstance(value, dict) else None


def _items(document: Document, key: str) -> Iterator[tuple[Path, dict[str, Value]]]:
    for index, item in walk_items(_get(document.root, key)):
        if not document.is_faulty((key, index)):
            yield (key, index), item


def _texts(document: Document, path: Path, value: Value) -> Iterator[tuple[Path, str]]:
    """The texts of a list at `path` that are not at fault."""
    for index, item in enumerate(value if isinstance(value, list) else []):
        if isinstance(item, str) and not document.is_faulty((*path, index)):
            yield (*path, index), item


def _known(document: Document, path: Path, name: str, kind: str, known: list[str]) -> None:
    if name in known:
        return
    names = sorted(set(known))
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    there = f"there are {', '.join(names[:_NAMES_SHOWN])}{more}" if names else "there is none"
    document.fault(path, f"there is no {kind} {shown(name)}{near(name, names)}: {there}")


def _rules_of(document: Document) -> Iterator[tuple[Path, dict[str, Value]]]:
    """Routes and dialers."""
    yield from _items(document, "routes")
    yield from _items(document, "dialers")


def _schedules(document: Document) -> None:
    for path, item in _rules_of(document):
        for keys in (("match", "schedule"), ("schedule",), ("recipient_schedule",)):
            value: Value = item
            for key in keys:
                value = _get(value, key)
            schedule_fault(document, (*path, *keys), value)


def _one_dialer_each(document: Document) -> None:
    """Decision 4: a campaign has at most one dialer."""
    first: dict[str, Path] = {}
    for path, item in _items(document, "dialers"):
        for place, campaign in _texts(document, (*path, "campaigns"), item.get("campaigns")):
            other = first.setdefault(campaign, place)
            if other != place:
                of = f"dialers[{other[1]}]"
                reason = f"{shown(campaign)} is drained by {of} (line {document.line(other)}) already: one dialer each"
                document.fault(place, reason)


def _places(document: Document) -> None:
    """Each place of `to` names one thing, which is there, once."""
    channels = [name for _, item in _items(document, "channels") if isinstance(name := item.get("name"), str)]
    tags = [tag for list_key in ("channels", "sims") for tag, _ in _tagged(document, list_key)]
    for path, item in _rules_of(document):
        first: dict[tuple[str, str], Path] = {}
        weighted = item.get("choose") == _WEIGHTED
        for index, place in walk_items(item.get("to")):
            where: Path = (*path, "to", index)
            if document.is_faulty(where):
                continue
            named = [key for key in ("channel", "group") if key in place]
            if len(named) != 1:
                document.fault(where, "one of channel and group is expected" + (", not both" if named else ""))
                continue
            (kind,) = named
            name = place[kind]
            if isinstance(name, str) and not document.is_faulty((*where, kind)):
                if not document.is_faulty(("channels",)):
                    known = channels if kind == "channel" else tags
                    what = "channel" if kind == "channel" else "channel or SIM with the tag"
                    _known(document, (*where, kind), name, what, known)
                other = first.setdefault((kind, name), where)
                if other != where and not document.is_faulty((*where, kind)):
                    document.fault((*where, kind), f"{shown(name)} is to[{other[-1]}] already")
            if weighted and "weight" not in place:
                document.fault(where, "a weight (1 to 1000) is needed, for this is choose: weighted")
            elif not weighted and "weight" in place and not document.is_faulty((*path, "choose")):
                document.fault((*where, "weight"), "is only for choose: weighted")


def _tagged(document: Document, list_key: str) -> Iterator[tuple[str, int]]:
    """Each tag with the index of who carries it."""
    for path, item in _items(document, list_key):
        index = path[1]
        assert isinstance(index, int)
        for _, tag in _texts(document, (*path, "tags"), item.get("tags")):
            yield tag, index


def _dial_strings(document: Document) -> None:
    """The ports of a dial string are there."""
    for path, item in _rules_of(document):
        where = (*path, "dial_string")
        written, to = item.get("dial_string"), item.get("to")
        if not isinstance(written, str) or document.is_faulty(where):
            continue
        groups = [place.get("group") for _, place in walk_items(to)]
        if item.get("choose") == _WEIGHTED:
            document.fault(where, "says the order by itself: remove it, or choose: weighted")
        elif item.get("sticky") == "true":
            document.fault(where, "says whose turn it is, whoever wrote to the number before: remove it, or sticky")
        elif isinstance(to, list) and to and (len(to) != 1 or groups == [None]):
            document.fault(where, "counts the channels of one group: one group in to is expected, or no to at all")
        elif not document.is_faulty(("channels",)) and not document.is_faulty((*path, "to")):
            _ports(document, where, dialstring.parse(written), groups[0] if groups else None)


def _ports(document: Document, where: Path, ports: tuple[int, ...], group: Value) -> None:
    count = sum(1 for _ in _items(document, "channels"))
    what = "the configuration"
    if isinstance(group, str):
        of_sims = {tag for tag, _ in _tagged(document, "sims")}
        what = f"the group {group}"
        if group not in of_sims:  # else nobody knows yet which channels that SIM will be in
            count = len({index for tag, index in _tagged(document, "channels") if tag == group})
    if count and max(ports) >= count:
        there = "1 channel, port 0" if count == 1 else f"{count} channels, ports 0 to {count - 1}"
        document.fault(where, f"there is no port {max(ports)}: {what} has {there}")


def _countries(document: Document) -> None:
    countries = _get(_get(document.root, "gateway"), "countries")
    allowed = [country for _, country in _texts(document, ("gateway", "countries", "allow"), _get(countries, "allow"))]
    path: Path = ("gateway", "countries", "deny")
    for where, country in _texts(document, path, _get(countries, "deny")):
        if country in allowed:
            document.fault(where, f"{country} is in allow too: remove it from one of the two")


def warnings(config: Config) -> Iterator[tuple[Path, str]]:
    """What is allowed between routes and channels but seldom meant, with the key path it belongs to."""
    catch_all = ""
    for index, route in enumerate(config.routes):
        if catch_all:
            yield ("routes", index), f"is never asked: {catch_all} before it matches every message"
        elif route.match == Match():
            catch_all = f"routes[{index}] ({route.name})"
    enabled = {channel.name for channel in config.channels if channel.enabled}
    tags = {tag for channel in config.channels if channel.enabled for tag in channel.tags}
    tags |= {tag for sim in config.sims for tag in sim.tags}
    both: tuple[tuple[str, Sequence[Route | Dialer]], ...] = (("routes", config.routes), ("dialers", config.dialers))
    for key, rules in both:
        for index, rule in enumerate(rules):
            if rule.to and not any(place.channel in enabled or place.group in tags for place in rule.to):
                yield (key, index, "to"), "all its channels are disabled: its messages wait"


RULES: tuple[Callable[[Document], None], ...] = (_schedules, _one_dialer_each, _places, _dial_strings, _countries)
