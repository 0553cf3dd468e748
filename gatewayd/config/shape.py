"""What may stand where in the file, read off the models once: for checking, for the JSON Schema, for the manual."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic.fields import FieldInfo

from gatewayd.config.section import Section
from gatewayd.config.units import Format, Name


@dataclass(frozen=True, slots=True)
class Slot:
    """One key. Exactly one of `section` and `format` is there; `many`: a list of it; `named`: names, each with one."""

    key: str
    field: FieldInfo
    section: type[Section] | None
    format: Format | None
    many: bool
    named: bool = False

    @property
    def description(self) -> str:
        """What it is for, in one paragraph."""
        return self.field.description or _first_paragraph(self.section)

    @property
    def required(self) -> bool:
        return self.field.is_required()

    @property
    def wording(self) -> str:
        """What may be written."""
        if self.section is not None:
            return "a list" if self.many else "names, each with keys and values" if self.named else "keys and values"
        assert self.format is not None
        return f"a list, each {self.format.wording}" if self.many else self.format.wording

    def default(self) -> object:
        """The default as JSON has it; None where there is none to show."""
        value = self.field.get_default()
        if self.format is None or value is None or self.required:
            return None
        return [self.format.default(item) for item in value] if self.many else self.format.default(value)

    def default_shown(self) -> str:
        """The default as it is written in YAML; "" where there is none to show."""
        value = self.field.get_default()
        if self.format is None or value is None or self.required:
            return ""
        return "[" + ", ".join(map(self.format.show, value)) + "]" if self.many else self.format.show(value)


def slots(section: type[Section]) -> dict[str, Slot]:
    """The keys of a section, in the order of the model."""
    result = {}
    for name, info in section.model_fields.items():
        key = info.validation_alias if isinstance(info.validation_alias, str) else name
        inner, metadata, many, named = _unwrap(info.annotation, list(info.metadata))
        form = next((item for item in metadata if isinstance(item, Format)), None)
        is_section = isinstance(inner, type) and issubclass(inner, Section)
        if is_section == (form is not None):
            raise TypeError(f"{section.__name__}.{name} needs either a Format or a Section")
        result[key] = Slot(key, info, inner if is_section else None, form, many, named)
    return result


def _unwrap(annotation: Any, metadata: list[object]) -> tuple[Any, list[object], bool, bool]:
    """Look through Annotated, `| None`, `tuple[…, ...]` and `Mapping[str, …]`."""
    many = named = False
    while True:
        arguments = get_args(annotation)
        if get_origin(annotation) is Annotated:
            annotation, metadata = arguments[0], [*metadata, *arguments[1:]]
        elif get_origin(annotation) is tuple:
            annotation, many = arguments[0], True
        elif get_origin(annotation) is Mapping:
            annotation, named = arguments[1], True
        elif type(None) in arguments:
            annotation = next(argument for argument in arguments if argument is not type(None))
        else:
            return annotation, metadata, many, named


def json_schema(root: type[Section]) -> dict[str, object]:
    """The JSON Schema of the file.

    Made here and not by pydantic, whose output changes with its version and knows neither our units nor our defaults
    as they are written.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "gatewayd.yaml",
        **_section_schema(root),
    }


def _section_schema(section: type[Section]) -> dict[str, object]:
    found = slots(section)
    return {
        "type": "object",
        "description": _first_paragraph(section),
        "properties": {slot.key: _slot_schema(slot) for slot in found.values()},
        "required": [slot.key for slot in found.values() if slot.required],
        "additionalProperties": False,
    }


def _slot_schema(slot: Slot) -> dict[str, object]:
    if slot.section is not None:
        item = _section_schema(slot.section)
    else:
        assert slot.format is not None
        item = slot.format.schema()
    schema: dict[str, object] = item
    if slot.many:
        schema = {"type": "array", "items": item}
        for bound in slot.field.metadata:
            for name, keyword in (("min_length", "minItems"), ("max_length", "maxItems")):
                if hasattr(bound, name):
                    schema[keyword] = getattr(bound, name)
    if slot.named:
        schema = {"type": "object", "propertyNames": Name().schema(), "additionalProperties": item}
    schema["description"] = slot.description
    default = slot.default()
    if default is not None:
        schema["default"] = default
    return schema


def manual(root: type[Section]) -> str:
    """The reference part of docs/configuration.md."""
    lines: list[str] = []
    _manual_section(root, "", lines)
    return "\n".join(lines)


def _manual_section(section: type[Section], path: str, lines: list[str]) -> None:
    lines += [f"## {f'`{path}`' if path else 'Top level'}", "", _first_paragraph(section), ""]
    lines += ["| key | value | default | |", "|---|---|---|---|"]
    below = []
    for slot in slots(section).values():
        if slot.section is not None:
            inner = f"{path}.{slot.key}".lstrip(".") + ("[]" if slot.many else ".NAME" if slot.named else "")
            below.append((slot.section, inner))
        default = f"`{slot.default_shown()}`" if slot.default_shown() else ""
        cells = [f"`{slot.key}`", slot.wording, "**required**" if slot.required else default, slot.description]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines.append("")
    if section.later:
        names = ", ".join(f"`{key}`" for key in sorted(section.later))
        lines += [f"Not in this version, and refused: {names}.", ""]
    for inner_section, inner_path in below:
        _manual_section(inner_section, inner_path, lines)


def _first_paragraph(section: type[Section] | None) -> str:
    text = (section.__doc__ or "") if section is not None else ""
    return " ".join(text.split("\n\n")[0].split())
