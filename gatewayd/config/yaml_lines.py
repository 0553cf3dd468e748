"""YAML to a plain tree that knows its lines.

What a word means is decided by the field it stands in, not by YAML: every unquoted scalar stays text (`Plain`). So
`home_country: NO` is Norway, `number: +59899000001` keeps its plus and `iccid: 8901…` its digits.

The tree is built from the parser's events, with a stack of our own, because PyYAML's composer recurses, lets the last
of two equal keys win, and expands aliases.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import yaml

from gatewayd.errors import Fault

MAX_OCTETS = 1 << 20
MAX_DEPTH = 16  # the configuration needs 5
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})

Path: TypeAlias = tuple[str | int, ...]
Value: TypeAlias = "dict[str, Value] | list[Value] | str | None"


class Plain(str):
    """A scalar written without quotes."""

    __slots__ = ()


@dataclass(slots=True)
class Document:
    """A YAML text as dicts with string keys, lists, text (`Plain` if unquoted) and None.

    `lines` has the line (from 1) of every value; `faulty` the paths whose fault is already known, so that nothing that
    only follows from it is reported as well.
    """

    root: Value = None
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    faulty: set[Path] = field(default_factory=set)

    def line(self, path: Path) -> int | None:
        """The line of a value, or of the nearest thing around it that is there."""
        for length in range(len(path), -1, -1):
            line = self.lines.get(path[:length])
            if line is not None:
                return line
        return None

    def fault(self, path: Path, reason: str, line: int | None = None) -> None:
        """Note one fault. Whatever else is wrong with that value is then not reported."""
        self.faults.append(Fault(key_path(path), reason, line if line is not None else self.line(path)))
        self.faulty.add(path)

    def is_faulty(self, path: Path) -> bool:
        """Whether a fault of this value, or of one around it, is known."""
        return any(path[:length] in self.faulty for length in range(len(path) + 1))


def shown(value: object) -> str:
    """A value as it can stand in a one-line message: escaped, and cut."""
    text = str(value)
    return repr(text if len(text) <= 40 else text[:39] + "…")


def key_path(path: Path) -> str:
    """("channels", 1, "pacing") as `channels[1].pacing`."""
    parts: list[str] = []
    for step in path:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            plain = step.isascii() and len(step) <= 40 and step.replace("_", "").replace("-", "").isalnum()
            parts.append(("." if parts else "") + (step if plain else shown(step)))
    return "".join(parts)


def read_document(source: str | bytes) -> Document:
    """Read one YAML document, never raising: what is wrong is in `faults`.

    After a syntax error the tree is what came before it. Aliases and tags are refused, so the tree is never larger than
    the text (at most MAX_OCTETS).
    """
    document = Document()
    text = _decode(source, document)
    if text is None:
        return document
    builder = _Builder(document)
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if not builder.feed(event):
                break
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        document.fault((), _reason(error), mark.line + 1 if mark is not None else builder.last_line)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        document.fault((), f"the character U+{ord(text[error.position]):04X} is not allowed in YAML", line)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets plain ValueErrors through, e.g. for "\UFFFFFFFF" and for absurd %YAML versions.
        document.fault((), f"no valid YAML: {shown(error)}", builder.last_line)
    return document


def _decode(source: str | bytes, document: Document) -> str | None:
    if len(source) > MAX_OCTETS:
        document.fault((), f"the file is larger than {MAX_OCTETS} octets")
        return None
    if isinstance(source, str):
        return source.removeprefix("\ufeff")
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        document.fault((), f"not UTF-8: octet 0x{source[error.start]:02X}; save the file as UTF-8", line)
        return None


def _reason(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "no valid YAML"
    if "'\\t'" in problem:
        return "a tab cannot indent or begin a value in YAML: use spaces"
    context = f" ({error.context})" if error.context else ""
    return "no valid YAML: " + " ".join(f"{problem}{context}".split())


@dataclass(slots=True)
class _Open:
    """A mapping or sequence not yet at its end. `key`: of the value that comes next; None: that value is dropped."""

    value: dict[str, Value] | list[Value]
    path: Path
    key: str | None = None
    key_line: int = 0
    value_next: bool = False


class _Builder:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._stack: list[_Open] = []
        self._documents = 0
        self.last_line = 1

    def feed(self, event: yaml.Event) -> bool:
        """Take one event; False: do not go on."""
        line = event.start_mark.line + 1 if event.start_mark is not None else self.last_line
        self.last_line = line
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._document.faults.append(Fault("", "a second YAML document begins here: only one is allowed", line))
                return False
        elif isinstance(event, yaml.AliasEvent):
            path = self._place(None, line)
            self._document.fault(path, f"aliases (*{event.anchor}) are not supported: write the value out", line)
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event, line)
        elif isinstance(event, yaml.CollectionStartEvent):
            return self._open(event, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._stack.pop()
        return True

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        value: str | None = event.value if event.style else Plain(event.value)
        if self._key_next():
            self._key(str(event.value), line)
            return
        if event.tag is None and not event.style and event.value in _NULLS:
            value = None
        path = self._place(value, line)
        if event.tag is not None:
            self._document.fault(path, f"tags ({shown(event.tag)}) are not supported: quote what is text", line)
        elif any("\ud800" <= char <= "\udfff" for char in event.value):
            self._document.fault(path, "holds half a surrogate pair, which is no character", line)

    def _open(self, event: yaml.CollectionStartEvent, line: int) -> bool:
        value: dict[str, Value] | list[Value] = {} if isinstance(event, yaml.MappingStartEvent) else []
        path = self._place(value, line)
        if event.tag is not None:
            self._document.fault(path, f"tags ({shown(event.tag)}) are not supported", line)
        if len(self._stack) >= MAX_DEPTH:
            self._document.faults.append(Fault(key_path(path[:4]), f"nested deeper than {MAX_DEPTH} levels", line))
            self._document.faulty.add(())  # what follows is not read
            return False
        self._stack.append(_Open(value, path))
        return True

    def _key_next(self) -> bool:
        return bool(self._stack) and isinstance(self._stack[-1].value, dict) and not self._stack[-1].value_next

    def _key(self, key: str, line: int) -> None:
        top = self._stack[-1]
        assert isinstance(top.value, dict)
        top.value_next = True
        top.key_line = line
        top.key = key
        if key in top.value:
            first = self._document.lines.get((*top.path, key))
            reason = f"given twice (first on line {first}): keep one"
            self._document.faults.append(Fault(key_path((*top.path, key)), reason, line))
            top.key = None

    def _place(self, value: Value, line: int) -> Path:
        """Put a value where it belongs and return its path."""
        lines = self._document.lines
        if not self._stack:
            self._document.root = value
            lines[()] = line
            return ()
        top = self._stack[-1]
        if isinstance(top.value, list):
            path: Path = (*top.path, len(top.value))
            top.value.append(value)
            lines[path] = line
            return path
        if not top.value_next:  # a list or mapping where a key belongs
            self._document.faults.append(Fault(key_path(top.path), "a key must be a word, not a list or mapping", line))
            top.key, top.value_next = None, True
            return (*top.path, "?")
        top.value_next = False
        if top.key is None:
            return (*top.path, "?")
        path = (*top.path, top.key)
        top.value[top.key] = value
        # A scalar is at fault where it stands; what a block is told of belongs to its key.
        lines[path] = top.key_line if isinstance(value, dict | list) else line
        return path


def walk_items(value: Value) -> Iterator[tuple[int, dict[str, Value]]]:
    """The mappings in a list, with their index; nothing for what is no list."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, dict):
                yield index, item
