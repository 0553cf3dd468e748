"""The store's contract on both engines: no method of Store is tried on one of them only.

A test counts if it takes the fixture `database_url`, and so runs on SQLite and on a real PostgreSQL. What it calls is
read from its syntax tree, through the helpers that it uses.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from sqlalchemy import delete

from gatewayd.spool import schema
from gatewayd.spool.channel_modes import DRAINING, PAUSED, WORKS, ChannelMode
from gatewayd.spool.engine import Statement
from gatewayd.spool.store import Store
from gatewayd.spool.work import Rules
from tests.spool.helpers import Spool, intake, message, open_spool, want

FOLDER = Path(__file__).parent
Function = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, Function):
            yield node


def _of_store(function: Function) -> set[str]:
    """Names of what a function uses of something called `store`."""
    found = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner in {"store", "_store"}:
                found.add(node.attr)
    return found


def _called(function: Function) -> set[str]:
    calls = (node.func for node in ast.walk(function) if isinstance(node, ast.Call))
    return {func.attr if isinstance(func, ast.Attribute) else getattr(func, "id", "") for func in calls}


def _uses(function: Function, helpers: dict[str, list[Function]], seen: set[str]) -> set[str]:
    found = _of_store(function)
    for name in _called(function) - seen:
        seen.add(name)
        for helper in helpers.get(name, ()):
            found |= _uses(helper, helpers, seen)
    return found


def used_on_both_engines() -> set[str]:
    """What tests that run on both engines use of a Store."""
    found: set[str] = set()
    shared = list(_functions(FOLDER / "helpers.py"))
    for path in sorted(FOLDER.glob("test_*.py")):
        functions = list(_functions(path))
        helpers: dict[str, list[Function]] = {}
        for function in [*shared, *functions]:
            helpers.setdefault(function.name, []).append(function)
        for function in functions:
            if "database_url" in {argument.arg for argument in function.args.args}:
                found |= _uses(function, helpers, set())
    return found


def test_every_method_of_the_store_is_tried_on_both_engines() -> None:
    public = {name for name in vars(Store) if not name.startswith("_")}
    assert public - used_on_both_engines() == set(), "needs a test that takes database_url"


# What has no module of its own.


async def test_what_was_said_of_a_channel_is_kept_before_it_ever_had_a_sim(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        said = await spool.store.set_channel_mode("m9", PAUSED, "root", "new SIM")
        assert said == ChannelMode(PAUSED, "root", "new SIM", spool.clock.ms)
        await spool.sim("m0")
        await spool.store.set_channel_mode("m0", DRAINING, "eva", "")
        await spool.store.set_channel_mode("m0", WORKS, "eva", "")
    async with open_spool(database_url) as spool:
        assert await spool.store.channel_modes() == {"m9": said}
        line = await spool.sim("m9")
        assert await spool.store.channel_modes() == {"m9": said}, "the SIM that is seen changes nothing"
        assert line.sim_id


async def test_a_turn_moves_with_its_intent_and_is_known_to_the_next_run(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        await spool.accept(message("+59898344484"), message("+59898344485"))
        wanted = replace(want(line), turn=lambda lane: ("turn:(0.1)", 1, ()))
        assert spool.store.turns == {}
        taken = await spool.store.work(line, None, wanted)
        assert taken.claim is not None
        assert spool.store.turns == {"turn:(0.1)": 1}
        wanted = replace(want(line), turn=lambda lane: ("turn:(0.1)", 0, ("m1",)))
        await spool.store.work(line, spool.sent(taken.claim), wanted)
    async with open_spool(database_url) as spool:
        await spool.claim(await spool.sim())  # they are read with the lanes
        assert spool.store.turns == {"turn:(0.1)": 0}


async def test_a_start_of_a_dialer_is_known_to_the_next_run(database_url: str) -> None:
    """When it was if that is known; else, of what was in hand at the end, when that was found."""
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        await spool.accept(message("+59898344484"), message("+59898344485"))
        wanted = replace(want(line), took=lambda lane: "dialer:d")
        taken = await spool.store.work(line, None, wanted)
        assert taken.claim is not None
        intended = spool.clock.ms
        assert await spool.store.last_starts() == {"dialer:d": intended}
        spool.clock.ms += 70
        sent = replace(spool.sent(taken.claim), started_at=intended + 50)
        spool.clock.ms += 1000
        await spool.store.work(line, sent, None)
        assert await spool.store.last_starts() == {"dialer:d": intended + 50}
        spool.clock.ms += 1000
        assert (await spool.store.work(line, None, wanted)).claim is not None
        spool.clock.ms += 500
    async with open_spool(database_url, clock=spool.clock) as spool:
        assert await spool.store.last_starts() == {"dialer:d": spool.clock.ms}
        # Of a record that retention has taken nobody knows: it may have been a moment ago.
        spool.clock.ms += 5
        await spool.store.writer.run(lambda tx: tx.run(Statement(delete(schema.attempts)), {}))
        assert await spool.store.last_starts() == {"dialer:d": spool.clock.ms}


async def test_another_configuration_holds_from_the_next_operation_on(database_url: str) -> None:
    async with open_spool(database_url) as spool:
        line = await spool.sim()
        for wait_ms in (1_000, 60_000):
            spool.store.configure(Rules(in_doubt_wait_ms=wait_ms), intake(), ())
            (message_id,) = await spool.accept(message(f"+5989834{wait_ms}"))
            claim = await spool.claim(line)
            assert claim is not None
            assert spool.store.recalled(message_id) == ""
            await spool.store.work(line, spool.doubtful(claim), None)
            assert (await spool.store.advance()).again_at == spool.clock.ms + wait_ms
            spool.clock.ms += wait_ms
            await _until_nothing_is_due(spool)


async def _until_nothing_is_due(spool: Spool) -> None:
    while (again_at := (await spool.store.advance()).again_at) is not None and again_at <= spool.clock.ms:
        pass
