"""The configuration of what a SIM may send: `sims[].quota`, `channels[].quota`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gatewayd.config.addresses import TimeZone
from gatewayd.config.section import Section
from gatewayd.config.units import Integer

_MOST = 1_000_000_000

PERIOD_KEYS = ("per_minute", "per_hour", "per_day", "per_month")
"""Keys of limits on segments, each of a longer period than the one before."""


class Quota(Section):
    """The most a SIM may send; what is not given is not limited. A segment counts from before it is handed over, and no
    longer counts once it is known not to have been sent. Counts are kept over restarts.
    """

    per_minute: Annotated[int, Integer(1, _MOST)] | None = Field(default=None, description="Segments in a minute.")
    per_hour: Annotated[int, Integer(1, _MOST)] | None = Field(
        default=None, description="Segments in an hour, which begins at minute 0."
    )
    per_day: Annotated[int, Integer(1, _MOST)] | None = Field(
        default=None, description="Segments from midnight to midnight."
    )
    per_month: Annotated[int, Integer(1, _MOST)] | None = Field(
        default=None, description="Segments in a month that begins on `reset_day`."
    )
    recipients_per_month: Annotated[int, Integer(1, _MOST)] | None = Field(
        default=None, description="Distinct numbers in such a month, counted from when this limit is first set."
    )
    reset_day: Annotated[int, Integer(1, 28)] = Field(
        default=1, description="The day of the month on which, at midnight, the operator's allowance begins anew."
    )
    timezone: Annotated[str, TimeZone()] | None = Field(
        default=None, description="The operator's time zone, for days and months. Default: `gateway.timezone`."
    )
