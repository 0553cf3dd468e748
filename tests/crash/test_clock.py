"""A wall clock that jumps by an hour, or a day, under a daemon at work: DESIGN §6.

Pace and time limits go by the monotonic clock; what is stored goes by the wall clock, and must not wait for it to come
round again.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gatewayd.modems.simulator.process import SimulatorProcess, simulator_process
from tests.crash.shifted import VARIABLE
from tests.daemon import DaemonProcess, configuration, daemon, until
from tests.faults import all_ready, all_settled, check, hasty, post, sent_times

HOUR, DAY = 3600, 86_400
INTERVAL_S = 0.4


class WrongClock:
    """The wall clock of the daemons that run on it."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "shift"
        self.set(0)

    def set(self, seconds: int) -> None:
        self._file.write_text(f"{seconds:<31}\n")

    @asynccontextmanager
    async def daemon(self, directory: Path, config: dict[str, Any]) -> AsyncIterator[DaemonProcess]:
        shifted = {VARIABLE: str(self._file)}
        async with daemon(directory, config, module="tests.crash.shifted", **shifted) as gateway:
            yield gateway


async def starts(sim: SimulatorProcess) -> list[float]:
    """When AT+CMGS came, in monotonic seconds."""
    return [row["cmgs_at"] for row in await sim.ledger("submit")]


@pytest.mark.parametrize("jumps", [(HOUR, 0), (-HOUR, DAY, -DAY)])
async def test_a_clock_that_jumps_doubles_nothing_and_holds_up_nothing(tmp_path: Path, jumps: tuple[int, ...]) -> None:
    clock = WrongClock(tmp_path)
    async with (
        simulator_process(modems=2, directory=tmp_path / "sim", latency_ms=20) as sim,
        clock.daemon(tmp_path, hasty(tmp_path, 2, report_wait="48h")) as gateway,
    ):
        await all_ready(gateway)
        accepted: dict[int, str] = {}
        for turn, seconds in enumerate(jumps):
            accepted |= await post(gateway, 20, f"turn {turn},")
            await sim.control.wait("submit", 20 * turn + 8)
            clock.set(seconds)
        found = await all_settled(gateway)
        check(accepted, found, await sent_times(sim))
        assert {(m["state"], m["delivery"]) for m in found.values()} == {(2, "delivered")}
        await sim.control.call({"do": "inbound", "modem": 0, "from": "+59898123401", "text": "and in"})

        async def kept() -> bool:
            return bool((await gateway.get("/api/v1/inbound"))[1]["items"])

        await until(kept)


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
async def test_the_pace_of_a_channel_does_not_follow_the_wall_clock(tmp_path: Path, jump: int) -> None:
    """Neither a burst after a jump forward nor an hour of silence after one back."""
    clock = WrongClock(tmp_path)
    config = configuration(tmp_path, [str(tmp_path / "sim" / "modem0")], interval=f"{int(INTERVAL_S * 1000)}ms")
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim") as sim,
        clock.daemon(tmp_path, config) as gateway,
    ):
        accepted = await post(gateway, 6)
        await sim.control.wait("submit", 3)
        clock.set(jump)
        found = await all_settled(gateway)
        check(accepted, found, await sent_times(sim))
        at = await starts(sim)
        # A start is the write of AT+CMGS; the modem sees it a little later, the one time more than the other.
        assert min(b - a for a, b in itertools.pairwise(at)) > INTERVAL_S / 2, at


async def test_delays_and_deadlines_survive_an_hour_back(tmp_path: Path) -> None:
    """A retry put off, and a doubt that waits: both set by a clock that was an hour ahead."""
    clock = WrongClock(tmp_path)
    clock.set(HOUR)
    config = hasty(tmp_path, 1, retry={"backoff": ["2s"]}, in_doubt={"wait": "5s"})
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=3_600_000) as sim,
        clock.daemon(tmp_path, config) as gateway,
    ):
        await all_ready(gateway)
        await sim.control.call({"do": "fault", "modem": 0, "name": "silent"})
        doubtful = await gateway.send("+59898344484", "doubtful")
        await gateway.until(doubtful, lambda m: m["state"] == 8)
        await all_ready(gateway)
        await sim.control.call({"do": "fault", "modem": 0, "name": "cms_error", "parameters": {"code": 41}})
        put_off = await gateway.send("+59898344485", "put off")
        await gateway.until(put_off, lambda m: bool(m["attempts"]) and m["segments"][0]["state"] == "QUEUED")
        clock.set(0)
        await gateway.until(put_off, lambda m: m["state"] == 2)
        await gateway.until(doubtful, lambda m: m["delivery"] == "unknown")
        assert await sent_times(sim) == {"doubtful": 1, "put off": 1}


async def test_a_boot_with_yesterdays_time_sends_what_waits(tmp_path: Path) -> None:
    """A board without a battery. What has no window and no daily quota need not wait for the time to be right."""
    clock = WrongClock(tmp_path)
    config = hasty(tmp_path, 1, in_doubt={"wait": "3s"}, retry={"backoff": ["2s"]})
    config["channels"][0]["submit_timeout"] = "3m"
    async with simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=3_600_000) as sim:
        async with clock.daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            await sim.control.call({"do": "fault", "modem": 0, "name": "cms_error", "parameters": {"code": 41}})
            await sim.control.call({"do": "fault", "modem": 0, "name": "silent", "skip": 1})
            accepted = await post(gateway, 5)
            await sim.control.wait("submit", 1)
            await gateway.kill()
        clock.set(-DAY)
        async with clock.daemon(tmp_path, config) as gateway:
            for idm in accepted:
                await gateway.until(idm, lambda m: m["state"] in {2, 8})
            (doubtful,) = [m["idm"] for m in await gateway.messages() if m["state"] == 8]
            await gateway.until(doubtful, lambda m: m["delivery"] == "unknown")
            assert set((await sent_times(sim)).values()) == {1}
            later = await post(gateway, 3, "later")
            for idm in later:
                await gateway.until(idm, lambda m: m["state"] == 2)
        clock.set(0)
        async with clock.daemon(tmp_path, config) as gateway:
            await gateway.until(await gateway.send("+59898344499", "today"), lambda m: m["state"] == 2)
            times = await sent_times(sim)
            assert set(times.values()) == {1}
            assert len(times) == 9


# What goes by the wall clock: DESIGN §6, last sentence.

BOUND = {
    "a window of its channel": {"channel": "m1"},
    "a quota by day": {"channel": "m2"},
    "a window of its dialer": {"class": "campaign", "campaign": "spring"},
}


def by_the_wall_clock(directory: Path) -> dict[str, Any]:
    """A channel without any of it, one with a window, one with a daily quota; and a dialer with a window."""
    always = {"windows": [{"from": "00:00", "to": "24:00"}]}
    dialers = [{"name": "spring", "campaigns": ["spring"], "schedule": "always", "to": [{"channel": "m0"}]}]
    config = {**hasty(directory, 3, report_wait="48h"), "schedules": {"always": always}, "dialers": dialers}
    config["channels"][1]["schedule"] = "always"
    config["channels"][2]["quota"] = {"per_day": 100}
    return config


class Texts(dict[int, str]):
    """All that was submitted, by idm, each to a number of its own: which of two texts a report is about is not the
    matter here.
    """

    async def post(self, gateway: DaemonProcess, text: str, **fields: str) -> list[int]:
        """Two messages; their idms."""
        body = [{"to": f"+59898{len(self) + i:04}77", "text": f"{text} {i}", **fields} for i in range(2)]
        status, answer = await gateway.post("/api/v1/messages", json=body)
        assert status == 202, answer
        idms = [item["idm"] for item in answer["items"]]
        self.update(zip(idms, (row["text"] for row in body), strict=True))
        return idms

    async def post_of_each(self, gateway: DaemonProcess, when: str) -> tuple[list[int], list[int]]:
        """Two messages that no clock binds, and two for each of BOUND."""
        bound = [idm for what, fields in BOUND.items() for idm in await self.post(gateway, f"{when}, {what}", **fields)]
        return await self.post(gateway, f"{when}, free", channel="m0"), bound


async def goes(gateway: DaemonProcess, idms: Iterable[int]) -> None:
    for idm in idms:
        await gateway.until(idm, lambda message: message["state"] == 2)


async def waits(gateway: DaemonProcess, idms: Iterable[int], because: str) -> None:
    """They wait and say so; asked once what is free has gone, so that they had their chance."""
    for idm in idms:
        message = await gateway.message(idm)
        assert (message["state"], message["attempts"]) == (1, []), message
        assert because in message["explain"], message["explain"]


async def test_with_yesterdays_time_only_what_goes_by_the_clock_waits(tmp_path: Path) -> None:
    """Until the clock is right again; then all of it goes out, once."""
    clock = WrongClock(tmp_path)
    config = by_the_wall_clock(tmp_path)
    texts = Texts()
    async with simulator_process(modems=3, directory=tmp_path / "sim", latency_ms=20) as sim:
        async with clock.daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            await texts.post_of_each(gateway, "before")
            await sim.control.wait("submit", 3)
            await gateway.kill()
        clock.set(-DAY)
        async with clock.daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            free, bound = await texts.post_of_each(gateway, "yesterday")
            await goes(gateway, free)
            await waits(gateway, bound, "the clock reads")
            (said,) = {line.partition(": ")[2] for line in gateway.log if "has a window, or a quota" in line}
            assert "before the newest time seen" in said
            clock.set(0)
            await goes(gateway, bound)
            found = await all_settled(gateway)
        check(texts, found, await sent_times(sim))
        assert sum(message["state"] == 8 for message in found.values()) <= 3, "what was in hand at the kill"


async def test_an_hour_forth_and_back_holds_up_only_what_goes_by_the_clock(tmp_path: Path) -> None:
    """Forth, nobody can tell that it is wrong. Back, it is behind what it has read, over a restart too."""
    clock = WrongClock(tmp_path)
    config = by_the_wall_clock(tmp_path)
    texts = Texts()
    async with simulator_process(modems=3, directory=tmp_path / "sim") as sim:
        async with clock.daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            clock.set(HOUR)
            free, bound = await texts.post_of_each(gateway, "forth")
            await goes(gateway, [*free, *bound])
            clock.set(0)
            free, late = await texts.post_of_each(gateway, "back")
            await goes(gateway, free)
            await waits(gateway, late, "before the newest time seen")
            await gateway.kill()
        async with clock.daemon(tmp_path, config) as gateway:
            await all_ready(gateway)
            free = await texts.post(gateway, "restarted, free", channel="m0")
            await goes(gateway, free)
            await waits(gateway, late, "before the newest time seen")
            await gateway.operate("clock/accept")
            await goes(gateway, late)
            check(texts, await all_settled(gateway), await sent_times(sim))


@pytest.mark.parametrize("sent", [True, False])
async def test_an_answer_that_comes_after_the_limit_settles_its_own_message(tmp_path: Path, sent: bool) -> None:
    """A modem that answers 180 s late: scaled, with a limit of 1 s and an answer after 3 s."""
    config = hasty(tmp_path, 1, in_doubt={"wait": "15m"})
    async with (
        simulator_process(modems=1, directory=tmp_path / "sim", report_delay_ms=3_600_000) as sim,
        daemon(tmp_path, config) as gateway,
    ):
        await all_ready(gateway)
        parameters = {"after_s": 3.0, "sent": sent, "code": 38}
        await sim.control.call({"do": "fault", "modem": 0, "name": "late", "parameters": parameters})
        late = await gateway.send("+59898344484", "late")
        await gateway.until(late, lambda m: m["state"] == 8)
        others = await post(gateway, 6, "meanwhile")
        for idm in others:
            await gateway.until(idm, lambda m: m["state"] == 2)
        if sent:
            message = await gateway.until(late, lambda m: m["state"] == 2)
            (row,) = [row for row in await sim.ledger("submit") if row["text"] == "late"]
            assert message["segments"][0]["tp_mr"] == row["mr"], "its own, and no other's"
        else:
            assert (await gateway.message(late))["state"] == 8, "refused, perhaps; shown, and not sent again"
        times = await sent_times(sim)
        assert times == {**dict.fromkeys(others.values(), 1), **({"late": 1} if sent else {})}
