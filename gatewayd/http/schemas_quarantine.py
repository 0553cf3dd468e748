"""The shapes of what is said of numbers in quarantine: for the OpenAPI document and the tests."""

from __future__ import annotations

from pydantic import Field

from gatewayd.http.schemas import Moment, _Given


class QuarantinedNumber(_Given):
    """A number that fails wherever it is tried. What is written to it waits."""

    number: str
    failures: int = Field(description="Messages to it that failed since `first_at`, with none that succeeded.")
    sims: int = Field(description="How many SIMs tried.")
    code: str = Field(description="What the last one failed with.")
    detail: str
    first_at: Moment
    last_at: Moment
    until: Moment = Field(
        description="Then one message to it is tried. It may be over: nothing was written to it since."
    )
    probe_idm: int | None = Field(description="The message that is tried now; null: none is.")


class QuarantinePage(_Given):
    """A page of the numbers in quarantine."""

    items: list[QuarantinedNumber]
    next: str | None = Field(description="`after` of the next page; null on the last one.")


class NumberReleased(_Given):
    """A number that is written to again."""

    number: str
    released: bool
    messages: int = Field(description="How many messages to it waited and are due now.")
