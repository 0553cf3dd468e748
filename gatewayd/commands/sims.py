"""`gatewayd sims`: the SIMs, what they have sent, and what they still may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gatewayd.commands.client import ConfigOption, JsonLinesOption, SocketOption, json_lines, page_of
from gatewayd.commands.control import Target
from gatewayd.commands.table import local, show, zone

if TYPE_CHECKING:
    from gatewayd.spool.reader import Reader

_PERIODS = ("minute", "hour", "day", "month", "recipients")


def sims(as_json: JsonLinesOption = False, socket: SocketOption = None, config: ConfigOption = None) -> None:
    """Show the SIMs: segments used of what is allowed, and when the count begins anew."""
    target = Target(socket, config)

    async def offline(reader: Reader) -> list[dict[str, Any]]:
        from functools import partial

        from gatewayd.clock import SystemClock
        from gatewayd.http.sims import views
        from gatewayd.spool.quota_reader import QuotaReader
        from gatewayd.wiring import quota_for

        configuration = target.spool_configuration()
        assert configuration is not None  # the spool was found by it
        return views(await QuotaReader(reader).sims(), partial(quota_for, configuration), SystemClock().now_ms())

    items = page_of(target, "/api/v1/sims", {}, offline, newest_last=False)
    if as_json:
        json_lines(items)
        return
    rows = [
        [
            str(item["id"]),
            item["channel"] or "",
            item["number"],
            item["iccid"] or f"IMSI {item['imsi']}",
            *(_used(item["usage"], period) for period in _PERIODS),
            local(_until(item["usage"], "day"), short=True),
            local(_until(item["usage"], "month"), short=True),
        ]
        for item in items
    ]
    heads = [f"day ends ({zone()})", "month ends"]
    show(["sim", "channel", "number", "ICCID", *_PERIODS[:4], "recipients", *heads], rows)


def _used(usage: list[dict[str, Any]], period: str) -> str:
    for each in usage:
        if each["period"] == period:
            return str(each["used"]) if each["limit"] is None else f"{each['used']}/{each['limit']}"
    return ""


def _until(usage: list[dict[str, Any]], period: str) -> str | None:
    return next((each["until"] for each in usage if each["period"] == period), None)
