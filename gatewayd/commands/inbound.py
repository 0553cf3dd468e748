"""What `gatewayd messages --inbound` and `gatewayd explain --inbound` show: what came in, and the PDUs as received."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import typer

from gatewayd.commands.client import MAX_IDM, from_spool, json_lines, page_of
from gatewayd.commands.control import DaemonDown, Target, call
from gatewayd.commands.table import local, plain, show, zone

if TYPE_CHECKING:
    from gatewayd.spool.reader import Reader

_INTENTS = {"opt_out": "STOP", "opt_in": "START", "help": "HELP", "none": "", "": ""}


def show_list(target: Target, *, after: int | None, limit: int, number: str | None, as_json: bool) -> None:
    """The newest, or those after an id; the newest last."""
    params = {"after": after, "limit": limit, "number": number, "order": "desc" if after is None else "asc"}

    async def offline(reader: Reader) -> list[dict[str, Any]]:
        from gatewayd.http.inbound import shown
        from gatewayd.spool.inbound_reader import InboundReader

        found = await InboundReader(reader).inbound(
            after=None if after is None else min(after, MAX_IDM),
            limit=limit,
            number=None if number is None else normalised(target, number),
            descending=after is None,
        )
        return [shown(view) for view in found]

    items = page_of(target, "/api/v1/inbound", params, offline, newest_last=after is None)
    if as_json:
        json_lines(items)
        return
    rows = [
        [
            str(item["id"]),
            item["from"] or "",
            item["channel"],
            local(item["received_at"], short=True),
            _asks(item),
            _parts(item),
            " ".join(_content(item).split()),
        ]
        for item in items
    ]
    show(["id", "from", "channel", f"received ({zone()})", "asks", "parts", "text"], rows, one_line=True)


def show_one(target: Target, inbound_id: int, *, as_json: bool) -> None:
    """One with its PDUs."""

    async def offline(reader: Reader) -> dict[str, Any] | None:
        from gatewayd.http.inbound import detail
        from gatewayd.spool.inbound_reader import InboundReader

        found = await InboundReader(reader).one(inbound_id) if inbound_id <= MAX_IDM else None
        return None if found is None else detail(found)

    try:
        found = call(target, "GET", f"/api/v1/inbound/{inbound_id}")
    except DaemonDown as error:
        found = from_spool(target, error, offline)
    if found is None:
        typer.echo(f"there is no inbound message {inbound_id}", err=True)
        raise typer.Exit(1)
    if as_json:
        typer.echo(json.dumps(found))
        return
    to = f" to {found['to']}" if found["to"] else ""
    typer.echo(plain(f"inbound {inbound_id} from {found['from'] or '(unknown)'}{to} by {found['channel']}"))
    typer.echo(f"received {local(found['received_at'])} {zone()}, {_kind(found)}")
    if found["intent"]:
        typer.echo(plain(f"opt-out rules: {found['intent']}, tier {found['tier']} {found['rule']}".rstrip()))
    typer.echo("\n" + plain(_content(found)) + "\n")
    rows = [
        [
            str(part["id"]),
            "" if part["concat"] is None else f"{part['concat']['seq']}/{part['concat']['total']}",
            local(part["received_at"]),
            _place(part),
            str(len(part["duplicates"]) or ""),
            part["raw"],
        ]
        for part in found["pdus"]
    ]
    show(["pdu", "part", f"received ({zone()})", "lay in", "seen again", "hex"], rows)


def normalised(target: Target, number: str) -> str:
    """A number as the spool has it, by the configuration's home country. Ends the command if it is none."""
    from gatewayd.errors import RequestError
    from gatewayd.router.numbers import normalise

    config = target.spool_configuration()
    home_country = (config.gateway.home_country if config is not None else None) or ""
    try:
        return normalise(number, home_country, strict=False, allow_premium=True, field="number")
    except RequestError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _asks(item: dict[str, Any]) -> str:
    word = _INTENTS.get(item["intent"], item["intent"])
    return f"{word}?" if word and item["tier"] == "B" else word


def _parts(item: dict[str, Any]) -> str:
    if item["parts_total"] == 1:
        return ""
    return f"{item['parts']}/{item['parts_total']}" + ("+" if item["continues"] is not None else "")


def _content(item: dict[str, Any]) -> str:
    if item["text"] is not None:
        return str(item["text"])
    if item["data"] is not None:
        return f"(data: {base64.b64decode(item['data']).hex().upper()})"
    return f"(cannot be decoded: {item['error']})"


def _kind(found: dict[str, Any]) -> str:
    said: str = found["kind"]
    if found["parts_total"] > 1:
        said += f", {found['parts']} of {found['parts_total']} parts"
    if found["continues"] is not None:
        said += f", came late: the rest is in inbound {found['continues']}"
    elif found["partial"]:
        said += ": the others did not come in time"
    return said


def _place(part: dict[str, Any]) -> str:
    return part["storage"] if part["index"] is None else f"{part['storage']} {part['index']}".strip()
