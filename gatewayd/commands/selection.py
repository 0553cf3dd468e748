"""The options that choose among messages: the same for lists and for operations on the queue."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, get_type_hints

import typer

from gatewayd.model import MessageState

STATES = {state: state.name.lower().replace("_", " ") for state in MessageState}


def _option(*names: str, metavar: str, help: str) -> Any:
    return Annotated[str | None, typer.Option(*names, metavar=metavar, help=help, show_default=False)]


_OPTIONS: dict[str, tuple[Any, Any]] = {
    "state": (
        Annotated[
            list[str] | None,
            typer.Option("--state", metavar="STATE", help="In this state: a number or a name. May be repeated."),
        ],
        None,
    ),
    "campaign": (_option("--campaign", metavar="NAME", help="Of this campaign."), None),
    "class": (_option("--class", metavar="CLASS", help="application, alert, agent, campaign or system."), None),
    "caller": (_option("--caller", metavar="KEY", help="Submitted by this API key or user."), None),
    "channel": (_option("--channel", metavar="NAME", help="This channel has it, had it last, or it is its own."), None),
    "to": (_option("--to", metavar="NUMBER", help="To this number."), None),
    "target": (_option("--target", metavar="TARGET", help="Routed there: any, channel:NAME, group:TAG …"), None),
    "route": (_option("--route", metavar="NAME", help="Routed by this rule."), None),
    "held": (_option("--held", metavar="WHO", help="Kept back by operator, pin, restore; by anybody: any."), None),
    "client_ref": (_option("--client-ref", metavar="REF", help="With this reference of yours."), None),
    "accepted_after": (
        _option("--accepted-after", metavar="TIME", help="Accepted at 2026-11-23T12:00:00Z or later."),
        None,
    ),
    "accepted_before": (_option("--accepted-before", metavar="TIME", help="Accepted before this time."), None),
    "in_doubt": (
        Annotated[bool, typer.Option("--in-doubt", help="A part of it is in doubt, or was given up in doubt.")],
        False,
    ),
}


@dataclass(frozen=True, slots=True)
class Selection:
    """What was given, by the API's names."""

    given: dict[str, Any]

    def query(self) -> dict[str, Any]:
        """As parameters of a list."""
        found = dict(self.given)
        if "states" in found:
            found["state"] = ",".join(found.pop("states"))
        return {name: "true" if value is True else value for name, value in found.items()}

    def words(self) -> str:
        """For people."""
        said = []
        for name, value in self.given.items():
            if value is True:
                said.append("in doubt")
            elif name == "states":
                said.append("state " + " or ".join(each.replace("_", " ") for each in value))
            else:
                said.append(f"{name.replace('_', ' ')} {value}")
        return ", ".join(said) or "every message"


def selecting(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a filter: it gets a Selection as its first argument."""
    parameters = list(inspect.signature(command).parameters.values())
    hints = get_type_hints(command, include_extras=True)
    own = [parameter.replace(annotation=hints[parameter.name]) for parameter in parameters[1:]]
    added = [
        inspect.Parameter(_python(name), inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _OPTIONS.items()
    ]
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]

    def run(**values: Any) -> None:
        chosen = {name: values.pop(_python(name)) for name in _OPTIONS}
        command(Selection(_given(chosen)), **values)

    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    signature = inspect.Signature([*own[:1], *added, *own[1:]])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return run


def state_of(word: str) -> MessageState:
    """A state by its number or name; what is none ends the command."""
    for state, name in STATES.items():
        if word.lower().replace("_", " ").replace("-", " ") in {name, str(state.value)}:
            return state
    typer.echo(f"--state: {word!r} is none of {', '.join(f'{s.value} {n}' for s, n in STATES.items())}", err=True)
    raise typer.Exit(2)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in values.items() if value not in (None, False, [])}
    if "state" in found:
        found["states"] = [state_of(word).name.lower() for word in found.pop("state")]
    return found


def _python(name: str) -> str:
    return "class_" if name == "class" else name
