"""After the last life: a backup, what is sent after it, a restore that is killed again and again.

Nothing that a backup takes for unsent goes out by itself, wherever the restore or the start after it was cut off.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gatewayd.modems.simulator.process import SimulatorProcess
from tests.crash.books import Tally, Verdict
from tests.crash.load import LONG, HarnessError
from tests.crash.plan import Kill
from tests.daemon import DaemonProcess, until

WAITING = 6  # messages that are unsent in the backup
REFUSED = {"restore.waiting", "restore.aside"}
"""Killed there, no daemon starts until the restore is repeated: it would begin an empty spool, or the wrong one."""


@dataclass(frozen=True, slots=True)
class Hands:
    """What the aftermath does its work with.

    `command` runs gatewayd with these words, dying at a point: its exit status and what it said. `dies` starts the
    daemon with a point and waits for its end; `lives` starts it and is over once it has been stopped.
    """

    directory: Path
    command: Callable[[str, Sequence[str]], Awaitable[tuple[int, str]]]
    dies: Callable[[str], Awaitable[tuple[int, str]]]
    lives: Callable[[Callable[[DaemonProcess], Awaitable[None]]], Awaitable[None]]


async def prepare(hands: Hands, api: DaemonProcess, sim: SimulatorProcess) -> dict[int, str]:
    """Make a backup in which messages are unsent, and let them be sent; their texts by idm."""
    await api.operate("pause", {"reason": "the rig"})
    body = [{"to": f"+5989977{i:02}577", "text": f"restored {i}{f': {LONG}' if i % 2 else ''}"} for i in range(WAITING)]
    status, answer = await api.post("/api/v1/messages", json=body)
    if status != 202:
        raise HarnessError(f"{status}: {answer}")
    waiting = {item["idm"]: row["text"] for item, row in zip(answer["items"], body, strict=True)}
    status, said = await hands.command("", ["backup", str(hands.directory / "copy")])
    if status:
        raise HarnessError(f"no backup: {said}")
    await api.operate("resume")

    async def sent() -> bool:
        return all([(await api.message(idm))["delivery"] == "delivered" for idm in waiting])

    await until(sent)
    return waiting


async def aftermath(
    hands: Hands, sim: SimulatorProcess, kills: Sequence[Kill], waiting: Mapping[int, str], newest: int, result: Verdict
) -> None:
    """Restore the backup, killed on the way; then look whether all of it is held. `newest`: the largest idm given."""
    out = await _out(sim)
    result.tallies += [Tally(runs=1) for _ in kills]
    first = len(result.tallies) - len(kills)

    def fault(kind: str, sentence: str) -> None:
        result.fault(first, kind, sentence)

    restore = ["restore", str(hands.directory / "copy")]
    for kill in (each for each in kills if each.kind.startswith("restore.")):
        _died(kill, *await hands.command(kill.point, restore))
        if kill.kind in REFUSED:
            status, said = await hands.dies("")
            if status != 1 or "run `gatewayd restore` again" not in said:
                fault("broken", f"after {kill} the daemon ended with {status}: {said}")
    status, said = await hands.command("", restore)
    if status:
        fault("broken", f"the restore cannot be repeated: {said}")
        return
    for kill in (each for each in kills if each.kind.startswith("hold.")):
        _died(kill, *await hands.dies(kill.point))

    async def look(api: DaemonProcess) -> None:
        for idm in waiting:
            message = await api.message(idm)
            if message["state"] != 1 or "restored from backup of" not in message["explain"]:
                fault("broken", f"{idm} was restored and is not held: {message}")
        fresh = await api.send("+59899779577", "after the restore")
        if fresh <= newest:
            fault("doubles", f"{fresh} was given again after the restore; {newest} was the newest id")
        if "paused by gatewayd" not in (await api.message(fresh))["explain"]:
            fault("broken", f"a restored spool sends: {await api.message(fresh)}")
        await api.operate("resume")
        await api.until(fresh, lambda message: message["delivery"] == "delivered")

    await hands.lives(look)
    more = await _out(sim) - out
    if more != Counter(["after the restore"]):
        fault("doubles", f"this went out after the restore: {more}")


async def _out(sim: SimulatorProcess) -> Counter[str]:
    """How often each text, or part of one, was accepted by the SMS centre."""
    rows: list[dict[str, Any]] = await sim.ledger("submit")
    return Counter(row["text"] for row in rows)


def _died(kill: Kill, status: int, said: str) -> None:
    if status != -signal.SIGKILL:
        raise HarnessError(f"{kill}: ended by itself, with {status}: {said}")
