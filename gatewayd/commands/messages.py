"""`gatewayd messages`: lists, and what operators do to messages: cancel, hold, release, requeue, resolve …"""

from __future__ import annotations

import inspect
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from gatewayd.commands.client import (
    MAX_IDM,
    ConfigOption,
    JsonLinesOption,
    JsonOption,
    SocketOption,
    ask,
    from_spool,
    json_lines,
)
from gatewayd.commands.control import DaemonDown, Target, call
from gatewayd.commands.selection import Selection, selecting
from gatewayd.commands.table import local, plain, show, zone

if TYPE_CHECKING:
    from gatewayd.spool.reader import Reader

app = typer.Typer(invoke_without_command=True)

POLL_S = 0.3  # how often an operation that is worked off is asked after
MAX_IDS = 1000


@app.callback()
@selecting
def messages(
    selection: Selection,
    context: typer.Context,
    after: Annotated[
        int | None,
        typer.Option(metavar="ID", min=0, help="Those after this one, in order; else the newest."),
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="How many.")] = 20,
    inbound: Annotated[bool, typer.Option("--inbound", help="What came in, instead of what is sent.")] = False,
    number: Annotated[
        str | None, typer.Option("--from", metavar="NUMBER", help="With --inbound: only from this number.")
    ] = None,
    as_json: JsonLinesOption = False,
    socket: SocketOption = None,
    config: ConfigOption = None,
) -> None:
    """Show messages, the newest last; with --inbound those that came in. Or cancel, hold, release … them.

    One of them with its raw PDUs: `gatewayd explain --inbound ID`.
    """
    if context.invoked_subcommand is not None:
        if selection.given or after is not None or limit != 20 or inbound or number or as_json or socket or config:
            word = context.invoked_subcommand
            raise _wrong(f"options of `{word}` come after it: gatewayd messages {word} …")
        return
    if inbound:
        if selection.given:
            raise _wrong("options that choose messages are of those that are sent; not with --inbound")
        from gatewayd.commands.inbound import show_list

        show_list(Target(socket, config), after=after, limit=limit, number=number, as_json=as_json)
        return
    if number is not None:
        raise _wrong("--from is of messages that came in: only with --inbound")
    items = _list(Target(socket, config), selection, after, limit)
    if as_json:
        json_lines(items)
        return
    doubts = "in_doubt" in selection.given
    rows = [
        [
            str(item["idm"]),
            item["to"],
            _words(item["state_name"]) + (", held" if item["held"] else ""),
            item["in_doubt"] if doubts else item["delivery"],
            item["channel"] or "",
            local(item["accepted_at"], short=True),
            item["reason"] if doubts else " ".join(item["text"].split()),
        ]
        for item in items
    ]
    fourth, last = ("policy", "why") if doubts else ("delivery", "text")
    show(["idm", "to", "state", fourth, "channel", f"accepted ({zone()})", last], rows, one_line=True)


def _list(target: Target, selection: Selection, after: int | None, limit: int) -> list[dict[str, Any]]:
    """Page by page: a page of a rare filter may be empty and not the last."""
    query = selection.query()
    order = "desc" if after is None else "asc"
    items: list[dict[str, Any]] = []
    following = after
    while True:
        params = {**query, "after": following, "limit": limit - len(items), "order": order}
        try:
            page = call(target, "GET", "/api/v1/messages", params=params)
        except DaemonDown as error:
            items = from_spool(target, error, lambda reader: _offline(target, reader, query, after, limit))
            break
        items += page["items"]
        following = page["next"]
        if following is None or len(items) >= limit:
            break
    return items if order == "asc" else items[::-1]


async def _offline(
    target: Target, reader: Reader, query: dict[str, Any], after: int | None, limit: int
) -> list[dict[str, Any]]:
    from gatewayd.errors import RequestError
    from gatewayd.http import filters, views
    from gatewayd.spool.message_reader import MessageReader

    config = target.spool_configuration()
    home = "" if config is None else config.gateway.home_country or ""
    try:
        wanted = filters.of_query(home, query)
    except RequestError as error:
        raise _wrong(f"{error.field}: {error.reason}") from None
    found: list[dict[str, Any]] = []
    following = None if after is None else min(after, MAX_IDM)
    while True:
        page = await MessageReader(reader).page(
            wanted, after=following, limit=limit - len(found), descending=after is None
        )
        found += [views.message(message) for message in page.items]
        following = page.next
        if following is None or len(found) >= limit:
            return found


@dataclass(frozen=True, slots=True)
class Ordering:
    """What is common to all operations: which messages, and how it is asked for."""

    selection: Selection
    ids: list[int]
    everything: bool
    yes: bool
    dry_run: bool
    wait: bool
    reason: str
    as_json: bool
    target: Target

    def run(self, action: str, **fields: Any) -> None:
        """Ask for it, and say what came of it. Exit status 1 if a message that was named is not changed."""
        body: dict[str, Any] = {"action": action, "reason": self.reason}
        body |= {name: value for name, value in fields.items() if value is not None and value is not False}
        body |= {"ids": self.ids} if self.ids else {}
        body |= {"filter": self.selection.given} if self.selection.given else {}
        body |= {"all": True} if self.everything else {}
        if not (self.ids or self.selection.given or self.everything):
            raise _wrong("say which messages: ids, a filter such as --campaign NAME, or --all")
        if len(self.ids) > MAX_IDS:
            raise _wrong(f"{len(self.ids)} ids: at most {MAX_IDS} at once")
        if self.dry_run:
            self._count(body)
            return
        if not (self.ids or self.yes):
            self._confirm(action, body)
        begun = ask(self.target, "POST", "/api/v1/operations", body=body)
        operation = begun["operation"]
        if operation["state"] == "running" and self.wait:
            operation = begun["operation"] = _follow(self.target, operation)
        if self.as_json:
            typer.echo(json.dumps(begun))
        elif begun["results"]:
            for result in begun["results"]:
                typer.echo(plain(f"{result['idm']}: {result['said']}"))
        else:
            typer.echo(operation_line(operation))
        if any(not result["changed"] for result in begun["results"]):
            raise typer.Exit(1)

    def _confirm(self, action: str, body: dict[str, Any]) -> None:
        """Before something is done to all that a filter means: ask on a terminal, elsewhere --yes is needed."""
        if not sys.stdin.isatty():
            raise _wrong("this may concern many messages: look with --dry-run, and say --yes")
        counted = ask(self.target, "POST", "/api/v1/operations", body={**body, "dry_run": True})
        typer.confirm(f"{action} {_counted(counted)} ({self.selection.words()})?", abort=True)

    def _count(self, body: dict[str, Any]) -> None:
        counted = ask(self.target, "POST", "/api/v1/operations", body={**body, "dry_run": True})
        if self.as_json:
            typer.echo(json.dumps({"count": counted["count"], "more": counted["more"]}))
        else:
            typer.echo(f"{_counted(counted)} ({self.selection.words()})")


_ORDERING: dict[str, tuple[Any, Any]] = {
    "ids": (Annotated[list[int] | None, typer.Argument(metavar="IDM", min=1, help="These messages.")], None),
    "everything": (Annotated[bool, typer.Option("--all", help="Every message that it can be done to.")], False),
    "yes": (Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, however many they are.")], False),
    "dry_run": (Annotated[bool, typer.Option("--dry-run", help="Only count the messages that are meant.")], False),
    "wait": (Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done.")], True),
    "reason": (Annotated[str, typer.Option(metavar="TEXT", help="Why; kept in their history.")], ""),
    "as_json": (JsonOption, False),
    "socket": (SocketOption, None),
    "config": (ConfigOption, None),
}


def _ordering(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of an operation, the filter's too: it gets an Ordering as its first argument."""
    hints = get_type_hints(command, include_extras=True)
    own = [each.replace(annotation=hints[each.name]) for each in list(inspect.signature(command).parameters.values())]

    def run(selection: Selection, **values: Any) -> None:
        common = {name: values.pop(name) for name in _ORDERING}
        target = Target(common.pop("socket"), common.pop("config"))
        ids = list(dict.fromkeys(common.pop("ids") or []))
        command(Ordering(selection, ids, target=target, **common), **values)

    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _ORDERING.items()
    ]
    own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own[1:]]
    first = inspect.Parameter("selection", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Selection)
    signature = inspect.Signature([first, *own, *added])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return selecting(run)


@app.command()
@_ordering
def cancel(ordering: Ordering) -> None:
    """Cancel messages that are not sent yet.

    What a modem has in its hands is called back if its text has not left; what has left is shown as sent.
    """
    ordering.run("cancel")


@app.command()
@_ordering
def hold(ordering: Ordering) -> None:
    """Keep messages back until they are released."""
    ordering.run("hold")


@app.command()
@_ordering
def release(ordering: Ordering) -> None:
    """Let messages go that were held. A number that has opted out stays blocked."""
    ordering.run("release")


@app.command()
@_ordering
def requeue(
    ordering: Ordering,
    expires_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="Another expiry; else one that has passed is lifted.")
    ] = None,
    may_double: Annotated[
        bool, typer.Option("--may-double", help="Also what was given up in doubt: it may arrive twice.")
    ] = False,
) -> None:
    """Queue messages again that failed, expired or were cancelled."""
    ordering.run("requeue", expires_at=expires_at, may_double=may_double)


@app.command()
@_ordering
def priority(
    ordering: Ordering,
    value: Annotated[int, typer.Argument(metavar="PRIORITY", min=0, max=9999, help="Larger goes first.")],
) -> None:
    """Give messages that wait another priority."""
    ordering.run("priority", priority=value)


@app.command()
@_ordering
def route(
    ordering: Ordering,
    where: Annotated[str, typer.Argument(metavar="TARGET", help="any, channel:NAME, group:TAG …")],
) -> None:
    """Send messages of which nothing was sent yet another way."""
    ordering.run("route", target=where)


@app.command()
@_ordering
def resolve(
    ordering: Ordering,
    sent: Annotated[bool, typer.Option("--sent", help="It was sent: the rest of the message goes on.")] = False,
    resend: Annotated[
        bool, typer.Option("--resend", "--not-sent", help="Send it (again): it may arrive twice.")
    ] = False,
    give_up: Annotated[bool, typer.Option("--give-up", help="Nobody will ever know: it is not sent again.")] = False,
) -> None:
    """End the doubt about messages. They are listed by `gatewayd messages --in-doubt`."""
    chosen = [name for name, wanted in (("sent", sent), ("resend", resend), ("give_up", give_up)) if wanted]
    if len(chosen) != 1:
        raise _wrong("say one of --sent, --resend (or --not-sent), --give-up")
    ordering.run("resolve", resolution=chosen[0])


def operation_line(operation: dict[str, Any]) -> str:
    """How an operation stands, in one line."""
    done = f"{operation['changed']} of {operation['matched']} messages changed"
    if operation["state"] == "running":
        share = f"{operation['progress']:.0%}"
        return f"operation {operation['id']} is under way ({share}, {done} so far): gatewayd operations"
    return f"operation {operation['id']} is {operation['state']}: {done}"


def _follow(target: Target, operation: dict[str, Any]) -> dict[str, Any]:
    path = f"/api/v1/operations/{operation['id']}"
    try:
        while operation["state"] == "running":
            time.sleep(POLL_S)
            operation = ask(target, "GET", path)
    except KeyboardInterrupt:
        typer.echo(
            f"operation {operation['id']} goes on; `gatewayd operations stop {operation['id']}` ends it", err=True
        )
        raise typer.Exit(1) from None
    return operation


def _counted(counted: dict[str, Any]) -> str:
    number = counted["count"]
    if counted["more"]:
        return f"{number} messages or more"
    return f"{number} message{'' if number == 1 else 's'}"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _wrong(what: str) -> typer.Exit:
    typer.echo(what, err=True)
    return typer.Exit(2)
