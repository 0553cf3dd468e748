"""The configuration of what is forgotten by age: `gateway.retention`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from gatewayd.config.addresses import AbsolutePath
from gatewayd.config.section import Section
from gatewayd.config.units import Duration, parse_duration


@dataclass(frozen=True)
class Age(Duration):
    """A duration after which something goes; `0s` is never."""

    @property
    def wording(self) -> str:  # type: ignore[override]
        return f"a duration from {self.least} to {self.most}, or 0s for ever"

    def parse(self, value: object) -> float:
        seconds = Duration("0s", self.most).parse(value)
        if 0 < seconds < parse_duration(self.least):
            raise ValueError(f"out of range: {self.wording} is expected")
        return seconds


class Retention(Section):
    """How long what is finished is kept: `0s` is for ever. Opt-outs and their evidence are never deleted."""

    content_s: Annotated[float, Age("1d", "3660d")] = Field(
        default=90 * 86_400.0,
        validation_alias="content",
        description="After it the texts of finished messages, and of what came in, are forgotten; the records stay.",
    )
    messages_s: Annotated[float, Age("7d", "3660d")] = Field(
        default=400 * 86_400.0,
        validation_alias="messages",
        description="After it finished messages are deleted with their history. What is queued, held or in doubt "
        "stays.",
    )
    inbound_s: Annotated[float, Age("7d", "3660d")] = Field(
        default=400 * 86_400.0, validation_alias="inbound", description="After it what came in is deleted."
    )
    archive_dir: Annotated[Path, AbsolutePath()] | None = Field(
        default=None,
        description="A folder where records are written before they are deleted, as JSON Lines in gzip, a file for "
        "each UTC day: docs/backup.md. Without it they are just deleted.",
    )
