"""Webhooks and callbacks on real sockets: order, repetition, patience, and that nobody disturbs anybody else."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from standardwebhooks.webhooks import Webhook as Verifier

from gatewayd.config.destinations import Reach
from gatewayd.config.webhooks import signing_key
from gatewayd.router.endpoints import Manner
from gatewayd.router.events import body, event_id
from gatewayd.router.outbox import NEW, SUSPECT
from gatewayd.router.verdicts import BACKOFF_S
from gatewayd.spool.deliveries import Pending
from gatewayd.spool.events import DEAD, DONE
from gatewayd.spool.outbox_reader import OutboxReader
from tests.daemon import until
from tests.router.receivers import HERE, SECRET, Got, Never, post, receiver, webhook
from tests.spool.helpers import FakeClock, message


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/spool.db"


def reasons(got: list[Got]) -> list[str]:
    return [each.json["data"]["reason"] for each in got]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_events_come_in_order_as_documents_and_signed(database_url: str) -> None:
    clock = FakeClock(int(datetime.now(UTC).timestamp() * 1000))  # the verifier looks at the time
    async with receiver() as crm:
        hook = webhook("crm", crm.url, key=signing_key(SECRET))
        async with post(database_url, hook, clock=clock) as office:
            await office.event(*range(25))
            got = await crm.until_got(25)
            assert reasons(got) == [str(number) for number in range(25)]
            records = await OutboxReader(office.reader).records(range(1, 26))
            for number, each in enumerate(got, 1):
                assert each.body == body(records[number], office.store.spool_id)
                assert each.id == each.json["id"] == event_id(office.store.spool_id, number)
                assert each.headers["Content-Type"] == "application/json"
                assert Verifier(SECRET).verify(each.body, each.headers) == each.json
            done = await office.settled(25)
            assert {(each.state, each.status, each.attempts, each.error) for each in done} == {("done", 200, 0, "")}


async def test_without_a_secret_nothing_is_signed(sqlite_url: str) -> None:
    async with receiver() as crm, post(sqlite_url, webhook("crm", crm.url)) as office:
        await office.event("a")
        (got,) = await crm.until_got(1)
        assert "webhook-signature" not in got.headers
        assert got.headers["webhook-timestamp"] == str(office.clock.ms // 1000)


async def test_only_the_events_it_wants(sqlite_url: str) -> None:
    async with receiver() as crm, post(sqlite_url, webhook("crm", crm.url, events=("message.*",))) as office:
        await office.event("a")
        await office.spool.accept(message(client_ref="r1"))
        (got,) = await crm.until_got(1)
        assert (got.json["type"], got.json["data"]["client_ref"]) == ("message.accepted", "r1")
        assert len(await office.log()) == 1


async def test_bad_endpoints_disturb_no_good_one(sqlite_url: str) -> None:
    """Promise 4: one slow webhook."""
    never = Never()
    async with receiver() as fine, receiver(never) as hangs, receiver(lambda got: 500) as fails:
        hooks = [
            webhook("hangs", hangs.url),
            webhook("refuses", f"http://127.0.0.1:{closed_port()}/"),
            webhook("fails", fails.url),
            webhook("fine", fine.url),
        ]
        async with post(sqlite_url, *hooks) as office:
            await office.event(*range(40))
            got = await fine.until_got(40)
            assert reasons(got) == [str(number) for number in range(40)]
            await office.settled(40)
            await office.rests("refuses")
            await office.rests("fails")
            errors = {each.endpoint: each.error for each in (await office.log("pending"))[::-1]}
            assert errors["webhook:fails"] == "HTTP 500 Internal Server Error"
            assert errors["webhook:refuses"] == "no connection: Connection refused"
            assert len(hangs.got) == 1
            assert (len(fails.got), fails.busy) == (1, 1)
            never.released.set()


async def test_down_for_an_hour(sqlite_url: str) -> None:
    up = False
    async with receiver(lambda got: 200 if up else 503) as crm, post(sqlite_url, webhook("crm", crm.url)) as office:
        begun = office.clock.ms
        await office.event(*range(10))
        waits: list[float] = []
        while office.clock.ms - begun < 3_600_000:
            waits.append(await office.rests("crm"))
            office.later(waits[-1])
            await crm.until_got(len(waits) + 1)
        for wait, step in zip(waits, BACKOFF_S, strict=False):
            assert 0.75 * step <= wait + 0.001 <= 1.25 * step
        first = crm.got[0]
        assert {each.id for each in crm.got} == {first.id}
        assert {each.body for each in crm.got} == {first.body}
        stamps = [int(each.headers["webhook-timestamp"]) for each in crm.got]
        assert stamps == sorted(stamps)
        assert len(set(stamps)) > len(waits) / 2  # fresh ones; the first tries are within a second
        wait = await office.rests("crm")
        tried, up = len(crm.got), True
        office.later(wait)
        await crm.until_got(tried + 10)
        assert reasons(crm.got[tried:]) == [str(number) for number in range(10)]
        assert {each.state for each in await office.settled(10)} == {"done"}


async def test_first_failure_warns_and_recovery_is_told(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gatewayd.webhook")
    up = False
    async with receiver(lambda got: 200 if up else 500) as crm, post(sqlite_url, webhook("fresh", crm.url)) as office:
        await office.event("a")
        office.later(await office.rests("fresh"))
        await crm.until_got(2)
        wait, up = await office.rests("fresh"), True
        office.later(wait)
        await office.settled(1)
    assert [(each.levelname, each.getMessage().split(" endpoint")[0]) for each in caplog.records] == [
        ("WARNING", "webhook failed"),
        ("INFO", "webhook works again"),
    ]


async def test_retry_after_is_honoured_within_bounds(sqlite_url: str) -> None:
    asked = ["17", "999999", "nonsense", "Wed, 21 Oct 2015 07:28:00 GMT"]

    def busy(got: Got) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": asked[len(crm.got) - 1]})

    async with receiver(busy) as crm, post(sqlite_url, webhook("crm", crm.url)) as office:
        await office.event("a")
        assert await office.rests("crm") == pytest.approx(17, abs=0.01)
        office.later(17)
        await crm.until_got(2)
        assert await office.rests("crm") == pytest.approx(3600, abs=0.01)
        for count in (3, 4):
            office.later(3600)
            await crm.until_got(count)
            assert await office.rests("crm") <= 150


@pytest.mark.parametrize("status", [400, 410, 422])
async def test_one_event_that_is_not_taken_blocks_the_rest_for_seconds(sqlite_url: str, status: int) -> None:
    def picky(got: Got) -> web.Response:
        poison = got.json["data"]["reason"] == "poison"
        return web.Response(status=status, text="no such\x1b field: reason") if poison else web.Response()

    async with receiver(picky) as crm, post(sqlite_url, webhook("crm", crm.url)) as office:
        await office.event("a", "poison", "b")
        for count in (2, 3):
            await crm.until_got(count)
            assert await office.rests("crm") < 7
            office.later(7)
        await crm.until_got(5)
        assert reasons(crm.got) == ["a", "poison", "poison", "poison", "b"]
        (dead,) = await office.settled(1, "dead")
        assert (dead.status, dead.attempts) == (status, 3)
        assert dead.error.endswith(": no such\ufffd field: reason")
        assert len(await office.settled(2)) == 2


async def test_what_is_too_old_becomes_a_dead_letter_and_can_be_replayed(database_url: str) -> None:
    up = False
    async with (
        receiver(lambda got: 204 if up else 404) as crm,
        post(database_url, webhook("crm", crm.url, give_up_ms=60_000)) as office,
    ):
        await office.event(*range(600))
        office.clock.ms += 30_000
        await office.event("young")
        for tries, least in (2, 0), (3, 0), (4, 30):
            office.later(max(await office.rests("crm"), least))
            await crm.until_got(tries)
        dead = await office.settled(600, "dead")
        assert dead[0].error == "HTTP 404 Not Found"
        assert dead[1].error.startswith("not tried any more, for the endpoint has failed all the time: HTTP 404")
        (left,) = await office.log("pending")
        assert left.outbox_id == 601
        wait, tried, up = await office.rests("crm"), len(crm.got), True
        count, following = await office.outbox.replay("uid 0", DEAD, endpoint="webhook:crm")
        assert (count, following) == (500, dead[499].id)
        count, following = await office.outbox.replay("uid 0", DEAD, endpoint="webhook:crm", after=following)
        assert (count, following) == (100, None)
        assert len(crm.got) == tried  # it is left alone until its time has come
        office.later(wait)
        await crm.until_got(tried + 601)
        assert reasons(crm.got[tried:]) == [*map(str, range(600)), "young"]
        await office.settled(601)
        assert await office.outbox.replay("uid 0", DONE, ids=[dead[3].id], endpoint="webhook:other") == (0, None)
        assert await office.outbox.replay("uid 0", DONE, ids=[dead[3].id]) == (1, None)
        await crm.until_got(tried + 602)
        assert reasons(crm.got[-1:]) == ["3"]


async def test_what_is_pending_survives_a_crash_with_its_id(database_url: str) -> None:
    """At least once: the answer that the gateway did not live to see is asked for again, under the same id."""
    never = Never()
    async with receiver(never) as crm:
        hook = webhook("crm", crm.url)
        async with post(database_url, hook) as office:
            await office.event("a", "b", "c")
            await crm.until_got(1)
        never.released.set()
        async with post(database_url, hook) as office:
            await crm.until_got(4)
            assert reasons(crm.got) == ["a", "a", "b", "c"]
            assert crm.got[0].id == crm.got[1].id
            assert crm.got[0].body == crm.got[1].body
            await office.settled(3)


async def test_a_stop_waits_for_the_call_and_no_longer(sqlite_url: str) -> None:
    never = Never()
    async with receiver(never) as crm, post(sqlite_url, webhook("crm", crm.url)) as office:
        await office.event("a", "b")
        await crm.until_got(1)
        stopping = asyncio.create_task(office.outbox.stop(30))
        await asyncio.sleep(0)
        never.released.set()
        await stopping
        assert [each.state for each in await office.log()] == ["done", "pending"]


async def test_a_changed_webhook_is_called_at_once_and_a_removed_one_keeps_what_is_pending(sqlite_url: str) -> None:
    async with receiver(lambda got: 500) as old, receiver() as new, post(sqlite_url) as office:
        office.configure(webhook("crm", old.url))
        await office.event("a", "b")
        await office.rests("crm")
        office.configure()
        await office.event("c")  # nobody wants it
        office.later(3600)
        assert office.outbox.views() == []
        assert [each.state for each in await office.log()] == ["pending"] * 2
        office.configure(webhook("crm", old.url, enabled=False))
        assert (len(old.got), office.outbox.views()[0].settings.enabled) == (1, False)
        office.configure(webhook("crm", new.url))
        await new.until_got(2)
        assert reasons(new.got) == ["a", "b"]
        await office.settled(2)


async def test_no_redirect_is_followed(sqlite_url: str) -> None:
    async with receiver() as secret:

        def elsewhere(got: Got) -> web.Response:
            return web.Response(status=307, headers={"Location": secret.url})

        async with receiver(elsewhere) as crm, post(sqlite_url, webhook("crm", crm.url)) as office:
            await office.event("a")
            await office.rests("crm")
            (pending,) = await office.log()
            assert pending.error == f"HTTP 307: redirects are not followed, give the final URL: {secret.url}"
            assert secret.got == []


async def test_endless_and_stalled_answers_are_bounded(sqlite_url: str) -> None:
    """The status is the answer; what follows is read no further than 64 KiB, and no longer than a call may take."""
    calls: list[bytes] = []
    cut_off = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        calls.append(await reader.readuntil(b"}}"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        try:
            while b"stalls" not in calls[-1]:
                writer.write(bytes(65536))
                await writer.drain()
            await reader.read()  # until the caller hangs up
        except ConnectionError:
            pass
        finally:
            cut_off.set()
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with post(sqlite_url, webhook("crm", url, timeout_s=1.0)) as office:
            await office.event("floods", "stalls", "floods")
            assert [each.status for each in await office.settled(3)] == [200] * 3
            assert len(calls) == 3
            await cut_off.wait()


async def test_what_cannot_be_written_down_is_not_told_again_and_again(sqlite_url: str) -> None:
    """While the disk is full: what was delivered waits to be noted, and nothing goes out twice."""
    async with receiver() as crm, post(sqlite_url, webhook("crm", crm.url)) as office:
        never = Never()
        crm.answer = never
        await office.event("a", "b")
        await crm.until_got(1)
        blocker = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
        blocker.execute("PRAGMA busy_timeout = 5000")
        blocker.execute("BEGIN IMMEDIATE")  # the writer's patience (5 s) runs out: SpoolError
        never.released.set()

        async def refused() -> bool:
            return office.store.writer.stats.failures > 0

        try:
            await until(refused)
        finally:
            blocker.execute("ROLLBACK")
            blocker.close()
        await office.settled(2)
        assert reasons(crm.got) == ["a", "b"]


async def test_the_test_event(sqlite_url: str) -> None:
    up = False
    async with (
        receiver(lambda got: 200 if up else 500) as crm,
        post(sqlite_url, webhook("crm", crm.url, key=signing_key("sesame"))) as office,
    ):
        await office.event("a")
        await office.rests("crm")
        assert await office.outbox.test("nobody") is None
        answer = await office.outbox.test("crm")
        assert answer is not None
        assert (answer.status, answer.error) == (500, "HTTP 500 Internal Server Error")
        up = True
        answer = await office.outbox.test("crm")
        assert answer is not None
        assert (answer.status, answer.error) == (200, "")
        assert crm.got[2].json["type"] == "webhook.test"
        assert "webhook-signature" in crm.got[2].headers
        await office.settled(1)  # without waiting for its time: the endpoint works again
        assert [each.json["type"] for each in crm.got[3:]] == ["channel.state"]


async def test_callbacks_are_in_order_for_each_message_and_one_bad_url_blocks_no_other(database_url: str) -> None:
    def by_path(got: Got) -> int:
        return 404 if got.path.startswith("/bad") else 200

    async with receiver(by_path) as app, post(database_url) as office:
        base = f"http://127.0.0.1:{app.port}"
        idms = await office.spool.accept(*(message(f"+5989834440{number}") for number in range(4)))
        for type_ in ("message.sent", "message.delivered"):
            await office.said(idms[0], type_, f"{base}/bad?x=1")
            for idm in idms[1:]:
                await office.said(idm, type_, f"{base}/good")
        done = await office.settled(6)
        assert {each.endpoint for each in done} == {f"callback:{base}"}
        good = [(each.json["data"]["idm"], each.json["type"]) for each in app.got if each.path == "/good"]
        for idm in idms[1:]:
            assert [type_ for each, type_ in good if each == idm] == ["message.sent", "message.delivered"]
        bad = [each.json["type"] for each in app.got if each.path != "/good"]
        assert bad == ["message.sent"]  # the second one waits for the first
        assert office.outbox.failing_callbacks() == 0


async def test_a_host_is_called_eight_times_at_once_at_most(sqlite_url: str) -> None:
    async def together(got: Got) -> int:
        if len(app.got) == 8:
            eight.set()
        await eight.wait()
        return 200

    eight = asyncio.Event()
    async with receiver(together) as app, post(sqlite_url) as office:
        office.configure(callbacks=Manner(reach=HERE))
        await office.outbox.stop(0)
        idms = await office.spool.accept(
            *(message(f"+598983444{number:02}", callback_url=app.url) for number in range(30))
        )
        office.outbox = type(office.outbox)(office.store, office.reader, office.clock)
        office.outbox.configure([], Manner(reach=HERE))
        await office.outbox.start()
        await office.settled(30)
        await office.outbox.stop(0)
        assert app.busy == 8
        assert sorted(each.json["data"]["idm"] for each in app.got) == sorted(idms)


async def test_what_waits_for_its_next_try_is_not_looked_at_for_each_new_event(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application with a wrong path: thousands of messages whose URL answers 404, and events go on."""
    working = False

    def answer(got: Got) -> int:
        return 200 if working or got.path.startswith("/good") else 404

    async with receiver(answer) as app, post(sqlite_url) as office:
        here = f"http://127.0.0.1:{app.port}"
        messages = [message(f"+59898{number:06}", callback_url=f"{here}/bad{number}") for number in range(350)]
        first = await office.spool.accept(*messages)
        await app.until_got(350)
        await office.settled(350, "pending")
        looked: list[int] = []
        heads = office.outbox.deliveries.heads

        async def counted(endpoint: str, after: int, limit: int) -> list[Pending]:
            looked.append(after)
            return await heads(endpoint, after, limit)

        monkeypatch.setattr(office.outbox.deliveries, "heads", counted)
        for number in range(20):
            await office.spool.accept(message(f"+59899{number:06}", callback_url=f"{here}/good{number}"))
            await app.until(lambda number=number: app.answered[-1].path == f"/good{number}")  # type: ignore[misc]
        await office.settled(20)
        assert min(looked) >= 350, "only what is new"
        await office.said(first[7], "message.sent", f"{here}/bad7")
        await office.settled(351, "pending")
        assert [each.path for each in app.got].count("/bad7") == 1, "it is not told before what waits"
        (done, *_) = await office.log("done")
        assert await office.outbox.replay("uid 0", DONE, ids=[done.id]) == (1, None)
        await app.until(lambda: len(app.got) == 371)  # also what lies before, where it is told once more
        await office.settled(20)
        working = True
        office.later(2)
        await office.settled(371)
        told = [each.json["type"] for each in app.answered if each.path == "/bad7"]
        assert told == ["message.accepted", "message.accepted", "message.sent"]


async def test_one_message_that_makes_a_host_fail_stops_no_other(sqlite_url: str) -> None:
    def fails_on_one(got: Got) -> int:
        return 500 if got.json["data"]["idm"] == 1 else 200

    async with receiver(fails_on_one) as app, post(sqlite_url) as office:
        for number in range(20):
            await office.spool.accept(message(f"+598983444{number:02}", callback_url=app.url))
        for _ in range(100):
            if len(await office.log("done")) == 19:
                break
            office.later(1)
            await asyncio.sleep(0.02)
        assert len(await office.settled(19)) == 19


async def test_many_hosts_that_hang_keep_no_good_one_waiting(sqlite_url: str) -> None:
    """Neither the sockets nor the time of those that answer."""
    never = Never()

    async def by_host(got: Got) -> int:
        if got.headers["Host"].startswith("127.0.0.1:"):
            return 200
        await never(got)
        return 503

    async with receiver(by_host, host="0.0.0.0") as app, post(sqlite_url) as office:
        here = f"http://127.0.0.1:{app.port}"
        office.configure(webhook("crm", f"{here}/crm", events=("channel.*",)))
        hosts = [f"127.0.{number // 250 + 1}.{number % 250 + 1}" for number in range(300)]
        await office.spool.accept(
            *(message(f"+59898{n:06}", callback_url=f"http://{host}:{app.port}/") for n, host in enumerate(hosts))
        )
        await app.until(lambda: app.now == NEW)
        await office.event("a")
        await app.until(lambda: any(each.path == "/crm" for each in app.answered))
        assert app.now == NEW  # they hang on, and no others of them are called
        never.released.set()

        async def all_failed() -> bool:
            return office.outbox.failing_callbacks() == 300

        await until(all_failed)
        assert app.busy <= NEW + 1
        # Those that failed have a few places of their own now: one that answers has its turn at once.
        never.released.clear()
        office.later(2)
        await app.until(lambda: app.now == SUSPECT)
        await office.spool.accept(message("+59899000000", callback_url=f"{here}/good"))
        await app.until(lambda: any(each.path == "/good" for each in app.answered))
        assert app.now == SUSPECT
        never.released.set()


async def test_hosts_never_called_before_keep_no_known_one_waiting(sqlite_url: str) -> None:
    """Ten thousand names that hang for the first time are not a queue for those that took their last call."""
    never = Never()

    async def by_host(got: Got) -> int:
        return 200 if got.headers["Host"].startswith("127.0.0.1:") else await never(got)

    async with receiver(by_host, host="0.0.0.0") as app, post(sqlite_url) as office:
        good = f"http://127.0.0.1:{app.port}"
        await office.spool.accept(message("+59899000000", callback_url=f"{good}/first"))
        await office.settled(1)
        hosts = [f"127.0.1.{number + 1}" for number in range(200)]
        await office.spool.accept(
            *(message(f"+59898{n:06}", callback_url=f"http://{host}:{app.port}/") for n, host in enumerate(hosts))
        )
        await app.until(lambda: app.now == NEW)
        await office.spool.accept(message("+59899000000", callback_url=f"{good}/again"))
        await app.until(lambda: any(each.path == "/again" for each in app.answered))
        assert app.now == NEW
        never.released.set()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://127.0.0.1:{port}/", "127.0.0.1 is a loopback address"),
        ("http://localhost:{port}/", "127.0.0.1 is a loopback address"),
        ("http://[::ffff:127.0.0.1]:{port}/", "is a loopback address"),
        ("http://0x7f.1:{port}/", ""),
        ("http://2130706433:{port}/", ""),
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254 is a link-local address"),
        ("http://user:word@127.0.0.1:{port}/", "user name or password"),
        ("gopher://127.0.0.1:{port}/", "http://HOST/… or https://HOST/… is expected"),
    ],
)
async def test_what_must_not_be_called_is_a_dead_letter_at_once(sqlite_url: str, url: str, words: str) -> None:
    async with receiver() as app, post(sqlite_url) as office:
        office.configure(callbacks=Manner())
        await office.spool.accept(message(callback_url=url.format(port=app.port)))
        (dead,) = await office.settled(1, "dead")
        assert words in dead.error
        assert app.got == []


async def test_a_name_is_judged_by_the_addresses_it_has_when_it_is_called(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: what a name stood for before counts for nothing."""
    answers = ["127.0.0.1"]

    def look_up(host: str, port: int, *rest: object) -> list[object]:
        assert host == "rebound.example"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers]

    monkeypatch.setattr("gatewayd.router.targets.socket.getaddrinfo", look_up)
    async with receiver() as app, post(sqlite_url) as office:
        url = f"http://rebound.example:{app.port}/"
        office.configure(callbacks=Manner(reach=Reach(networks=HERE.networks)))
        await office.spool.accept(message(callback_url=url))
        (dead,) = await office.settled(1, "dead")
        assert dead.error.startswith("not called: 127.0.0.1 is a loopback address")
        answers.append("10.0.0.1")
        office.configure(callbacks=Manner(reach=HERE))
        await office.outbox.replay("uid 0", DEAD)
        await app.until_got(1)
        assert app.got[0].headers["Host"] == f"rebound.example:{app.port}"


async def test_kannel_reports_are_gets_of_what_the_mask_wants(sqlite_url: str) -> None:
    async with receiver() as app, post(sqlite_url) as office:
        (idm,) = await office.spool.accept(message())
        url = f"http://127.0.0.1:{app.port}/dlr?type=%d&id=%I"
        for type_ in ("message.sent", "message.delivered"):
            await office.said(idm, type_, url, "kannel:1")
        done = await office.settled(2)
        assert [each.status for each in done] == [None, 200]
        (got,) = app.got
        assert (got.method, got.path, got.body) == ("GET", f"/dlr?type=1&id={idm}", b"")


async def test_an_event_that_cannot_be_put_into_words_stops_no_other(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiver() as app, post(sqlite_url) as office:
        (idm,) = await office.spool.accept(message())
        await office.said(idm, "message.sent", app.url, "morse")
        await office.said(idm, "message.delivered", app.url)
        await app.until_got(1)
        (dead,) = await office.settled(1, "dead")
        assert "format 'morse' is not known" in dead.error
        assert json.loads(app.got[0].body)["type"] == "message.delivered"
    assert "cannot be told" in caplog.text
