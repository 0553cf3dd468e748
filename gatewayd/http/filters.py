"""The filter of messages, as a query or a body gives it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

from gatewayd.clock import iso
from gatewayd.errors import RequestError
from gatewayd.http import parameters, schemas, views
from gatewayd.http.context import HttpContext
from gatewayd.http.inbound import plus_restored
from gatewayd.http.parameters import parameter, plain_text
from gatewayd.http.schemas_operations import Holder, MessageFilter
from gatewayd.model import MessageClass, MessageState
from gatewayd.router.numbers import normalise
from gatewayd.spool.filters import Filter

QUERY = (
    "state", "campaign", "class", "caller", "channel", "to", "target", "route", "held", "client_ref", "accepted_after",
    "accepted_before", "in_doubt",
)  # fmt: skip
"""Parameters of a list of messages that choose among them."""

_MAX_VALUE = 255
_STATES = {**{str(state.value): state for state in MessageState}, **{name: s for s, name in views.STATE_NAMES.items()}}
_MAY_BE_EMPTY = ("campaign", "route")  # "": what has none
_TEXTS = ("campaign", "caller", "channel", "target", "route", "client_ref")


def of_query(home_country: str, query: dict[str, str]) -> Filter:
    """The filter that a query's parameters make; numbers may be national ones of `home_country` ("": none). Raises
    RequestError that names the one at fault.
    """
    found = Filter(
        states=parameter(query, "state", _states) or (),
        class_=parameter(query, "class", _class),
        to=None if "to" not in query else _number(home_country, "to", query["to"]),
        accepted_after=parameter(query, "accepted_after", parameters.moment),
        accepted_before=parameter(query, "accepted_before", parameters.moment),
        held=parameter(query, "held", _holder),
        in_doubt=bool(parameter(query, "in_doubt", _truth)),
    )
    texts: dict[str, Any] = {
        name: parameter(query, name, _text if name in _MAY_BE_EMPTY else _some_text) for name in _TEXTS
    }
    return replace(found, **texts)


def of_body(context: HttpContext, made: MessageFilter | None, ids: tuple[int, ...] = ()) -> Filter:
    """The filter of a body. Raises RequestError that names the field at fault."""
    if made is None:
        return Filter(ids=ids)
    home = context.submitter.settings.home_country
    for name in _TEXTS:
        value = getattr(made, name)
        if value and not plain_text(value, schemas.MAX_URL):
            raise RequestError(f"filter.{name}", "has characters in it that no text has")
    return Filter(
        ids=ids,
        states=tuple(dict.fromkeys(_STATES[name] for name in made.states)),
        class_=None if made.class_ is None else MessageClass(made.class_),
        to=None if made.to is None else _number(home, "filter.to", made.to),
        accepted_after=None if made.accepted_after is None else schemas.epoch_ms(made.accepted_after),
        accepted_before=None if made.accepted_before is None else schemas.epoch_ms(made.accepted_before),
        held=made.held,
        in_doubt=made.in_doubt,
        **{name: getattr(made, name) for name in _TEXTS},
    )


def shown(wanted: Filter) -> dict[str, Any]:
    """A filter as JSON shows it: as it is given."""
    found = wanted.given
    found.pop("only_resent", None)
    if "states" in found:
        found["states"] = [views.STATE_NAMES[state] for state in wanted.states]
    if "class_" in found:
        found["class"] = found.pop("class_")
    for name in ("accepted_after", "accepted_before"):
        if name in found:
            found[name] = iso(found[name])
    return found


def state_of(value: str) -> MessageState:
    """A state by its name or its number. Raises ValueError with what is expected."""
    state = _STATES.get(value.lower().replace(" ", "_").replace("-", "_"))
    if state is None:
        raise ValueError(
            f"a state ({', '.join(views.STATE_NAMES.values())}) or its number (0 to {len(MessageState) - 1})"
        )
    return state


def _states(value: str) -> tuple[MessageState, ...]:
    return tuple(dict.fromkeys(state_of(word) for word in value.split(",")))


def _number(home_country: str, name: str, value: str) -> str:
    return normalise(plus_restored(value), home_country, strict=False, allow_premium=True, field=name)


def _class(value: str) -> MessageClass:
    try:
        return MessageClass(value.lower())
    except ValueError:
        raise ValueError(f"a class ({', '.join(each.value for each in MessageClass)})") from None


def _truth(value: str) -> bool:
    if value.lower() not in {"true", "false"}:
        raise ValueError("true or false")
    return value.lower() == "true"


def _holder(value: str) -> str:
    if value not in get_args(Holder):
        raise ValueError(f"one of {', '.join(get_args(Holder))}")
    return value


def _some_text(value: str) -> str:
    if not value:
        raise ValueError(f"a text of 1 to {_MAX_VALUE} characters")
    return _text(value)


def _text(value: str) -> str:
    if value and not plain_text(value, _MAX_VALUE):
        raise ValueError(f"a text of at most {_MAX_VALUE} characters")
    return value
