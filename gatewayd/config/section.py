"""The base of the configuration's models, for the modules that hold some of them."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict

from gatewayd.config.units import Boolean

Flag = Annotated[bool, Boolean()]


class Section(BaseModel):
    """Base of all models. `later` are keys, `later_values` values of a key, that another version will know."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True)
    later: ClassVar[frozenset[str]] = frozenset()
    later_values: ClassVar[dict[str, frozenset[str]]] = {}

    @classmethod
    def hint(cls, key: str) -> str:
        """What may be meant by a key that is not known: ": do so", or ""."""
        return ""
