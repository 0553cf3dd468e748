"""TLS on real sockets: who is let in, who is not, and certificates exchanged while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from gatewayd.config import TlsFiles
from gatewayd.errors import ConfigError
from gatewayd.http import tls
from tests.daemon import configuration, daemon, until
from tests.http.helpers import DEADLINE_S, SEND, Gateway, bearer, gateway

GOOD = {"destination": "098344484", "message": "x"}
RSA, ECDSA = trustme.KeyType.RSA, trustme.KeyType.ECDSA


class Authority:
    """Signs certificates for 127.0.0.1, and trusts them."""

    def __init__(self, folder: Path, name: str = "tls") -> None:
        self.files = TlsFiles(folder / f"{name}.pem", folder / f"{name}.key")
        self._ca = trustme.CA()
        self.issue()

    def issue(self, kind: trustme.KeyType = ECDSA) -> bytes:
        """Another certificate and key at the same place; the certificate in DER."""
        made = self._ca.issue_cert("127.0.0.1", key_type=kind, not_after=datetime(2099, 1, 1, tzinfo=UTC))
        chain = [pem.bytes() for pem in made.cert_chain_pems]
        self.files.cert_file.write_bytes(b"".join(chain))
        self.files.key_file.touch(mode=0o600)
        self.files.key_file.write_bytes(made.private_key_pem.bytes())
        return ssl.PEM_cert_to_DER_cert(chain[0].decode())

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self._ca.configure_trust(context)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@contextlib.asynccontextmanager
async def https(context: ssl.SSLContext) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        yield session


def url(gate: Gateway, path: str = "/healthz") -> str:
    host, port = gate.server.address
    return f"https://{host}:{port}{path}"


async def status_of(session: aiohttp.ClientSession, gate: Gateway) -> int:
    async with session.get(url(gate)) as response:
        await response.read()
        return response.status


async def served(gate: Gateway, context: ssl.SSLContext) -> bytes:
    """The certificate a new connection is shown, in DER."""
    _, writer = await asyncio.open_connection(*gate.server.address, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return bytes(shown)


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Read until the other side closes."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await reader.read()
    except ConnectionError:
        return b""


async def test_https_is_served_and_http_is_not(tmp_path: Path, authority: Authority) -> None:
    async with gateway(tmp_path, tls=authority.files) as gate, https(authority.client()) as session:
        async with session.post(url(gate, "/SendSMS"), data=GOOD, headers=bearer(SEND)) as response:
            assert response.status == 200
            assert response.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert gate.queued() == 1
        assert b"HTTP/1.1 200" not in await gate.raw(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await status_of(session, gate) == 200


async def test_a_stranger_to_the_authority_is_not_served_by_us(tmp_path: Path, authority: Authority) -> None:
    async with gateway(tmp_path, tls=authority.files) as gate, https(ssl.create_default_context()) as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await status_of(session, gate)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("min_version", "client_speaks", "taken"),
    [
        ("1.2", ssl.TLSVersion.TLSv1_1, False),
        ("1.2", ssl.TLSVersion.TLSv1_2, True),
        ("1.2", ssl.TLSVersion.TLSv1_3, True),
        ("1.3", ssl.TLSVersion.TLSv1_2, False),
        ("1.3", ssl.TLSVersion.TLSv1_3, True),
    ],
)
async def test_old_versions_are_refused(
    tmp_path: Path, authority: Authority, min_version: str, client_speaks: ssl.TLSVersion, taken: bool
) -> None:
    client = authority.client()
    client.set_ciphers("DEFAULT:@SECLEVEL=0")  # lets OpenSSL offer TLS 1.1 at all
    client.minimum_version = min(client_speaks, ssl.TLSVersion.TLSv1_2)
    client.maximum_version = client_speaks
    files = TlsFiles(authority.files.cert_file, authority.files.key_file, min_version)
    async with gateway(tmp_path, tls=files) as gate, https(client) as session:
        if taken:
            assert await status_of(session, gate) == 200
        else:
            with pytest.raises(aiohttp.ClientConnectorError):
                await status_of(session, gate)


@pytest.mark.parametrize("kinds", [(RSA, RSA), (RSA, ECDSA), (ECDSA, RSA)])
async def test_a_renewed_certificate_is_served_to_new_connections(
    tmp_path: Path, authority: Authority, kinds: tuple[trustme.KeyType, trustme.KeyType]
) -> None:
    before = authority.issue(kinds[0])
    async with gateway(tmp_path, tls=authority.files) as gate, https(authority.client()) as session:
        assert await status_of(session, gate) == 200
        after = authority.issue(kinds[1])
        assert await served(gate, authority.client()) == before  # not yet
        assert gate.server.reload_tls()
        assert await served(gate, authority.client()) == after
        assert await status_of(session, gate) == 200  # on the connection of before
        other = Authority(tmp_path, "other")
        assert gate.server.reload_tls(other.files)
        await served(gate, other.client())
        with pytest.raises(ssl.SSLError):
            await served(gate, authority.client())


async def test_a_bad_pair_is_refused_and_the_old_one_stays(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    before = authority.issue()
    async with gateway(tmp_path, tls=authority.files) as gate:
        key = authority.files.key_file.read_bytes()
        authority.issue()
        authority.files.key_file.write_bytes(key)  # of the certificate before: half a renewal
        assert not gate.server.reload_tls()
        assert await served(gate, authority.client()) == before
        assert "http.tls.key_file" in caplog.text
        assert "is not the key of the first certificate" in caplog.text
        assert "the old certificate stays" in caplog.text
        authority.files.cert_file.unlink()
        assert not gate.server.reload_tls()
        assert await served(gate, authority.client()) == before


async def test_without_tls_there_is_nothing_to_reload(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with gateway(tmp_path) as gate:
        assert gate.server.reload_tls()
        assert not gate.server.reload_tls(authority.files)
        assert "restart gatewayd" in caplog.text
        assert "Strict-Transport-Security" not in (await gate.get("/healthz")).headers


async def test_files_that_are_no_good_keep_it_from_starting(tmp_path: Path, authority: Authority) -> None:
    authority.files.key_file.chmod(0o644)
    with pytest.raises(ConfigError, match=r"http\.tls\.key_file.*everybody can read"):
        async with gateway(tmp_path, tls=authority.files):
            pass


GARBAGE = [
    b"",
    b"\x16",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
    b"\xff" * 70_000,
]


async def test_clients_that_say_nothing_or_garbage_are_no_hindrance(tmp_path: Path, authority: Authority) -> None:
    async with gateway(tmp_path, tls=authority.files, handshake_timeout_s=DEADLINE_S) as gate:
        strangers = []
        for number in range(100):
            reader, writer = await asyncio.open_connection(*gate.server.address)
            writer.write(GARBAGE[number % len(GARBAGE)])
            strangers.append((reader, writer))
        async with (
            https(authority.client()) as session,
            session.post(url(gate, "/SendSMS"), data=GOOD, headers=bearer(SEND)) as response,
        ):
            assert response.status == 200
        for _, writer in strangers:
            writer.close()


async def test_a_handshake_is_bounded_in_time(tmp_path: Path, authority: Authority) -> None:
    async with gateway(tmp_path, tls=authority.files, handshake_timeout_s=0.05) as gate:
        reader, writer = await asyncio.open_connection(*gate.server.address)
        writer.write(b"\x16\x03\x01")
        assert await ended(reader) == b""
        writer.close()


async def test_of_too_many_handshakes_the_oldest_is_given_up(
    tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "MAX_HANDSHAKES", 10)
    async with gateway(tmp_path, tls=authority.files, handshake_timeout_s=DEADLINE_S) as gate:
        silent = [await asyncio.open_connection(*gate.server.address) for _ in range(50)]
        async with https(authority.client()) as session:
            assert await status_of(session, gate) == 200
        for reader, _ in silent[:39]:
            assert await ended(reader) == b""
        for _, writer in silent:
            writer.close()


async def test_a_stop_does_not_wait_for_handshakes(tmp_path: Path, authority: Authority) -> None:
    async with gateway(tmp_path, tls=authority.files, handshake_timeout_s=600) as gate:
        reader, writer = await asyncio.open_connection(*gate.server.address)
        async with https(authority.client()) as session:
            assert await status_of(session, gate) == 200
        async with asyncio.timeout(DEADLINE_S):
            await gate.server.stop()
            assert await ended(reader) == b""
        writer.close()


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(
    tmp_path: Path, authority: Authority
) -> None:
    """One segment that holds the client's Finished and its request: nothing may fall between two protocols."""
    async with gateway(tmp_path, tls=authority.files) as gate:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = authority.client().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        reader, writer = await asyncio.open_connection(*gate.server.address)
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    writer.write(outgoing.read())
                    incoming.write(await reader.read(65536))
            client.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            writer.write(outgoing.read())
            answer = b""
            while b'{"status":"ok"}' not in answer:
                with contextlib.suppress(ssl.SSLWantReadError):
                    answer += client.read(65536)
                    continue
                octets = await reader.read(65536)
                assert octets, answer
                incoming.write(octets)
        assert answer.startswith(b"HTTP/1.1 200")
        writer.close()


async def test_beyond_the_bound_a_connection_is_told_so(tmp_path: Path, authority: Authority) -> None:
    async with (
        gateway(tmp_path, tls=authority.files, max_connections=1) as gate,
        https(authority.client()) as first,
        https(authority.client()) as second,
    ):
        assert await status_of(first, gate) == 200
        assert await status_of(second, gate) == 503


async def test_the_control_socket_has_no_tls(tmp_path: Path, authority: Authority) -> None:
    path = str(tmp_path / "control.sock")
    async with (
        gateway(tmp_path, tls=authority.files, control_socket=path),
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as client,
        client.get("http://local/healthz") as response,
    ):
        assert response.status == 200
        assert "Strict-Transport-Security" not in response.headers


async def test_strangers_leave_no_traceback(
    tmp_path: Path, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    async with gateway(tmp_path, tls=authority.files) as gate:
        for garbage in GARBAGE[1:]:
            reader, writer = await asyncio.open_connection(*gate.server.address)
            writer.write(garbage)
            writer.write_eof()
            await ended(reader)
            writer.close()
        async with https(authority.client()) as session:
            assert await status_of(session, gate) == 200
    assert complaints == []
    ours = [record for record in caplog.records if record.name.startswith("gatewayd")]
    assert [record for record in ours if record.levelno >= logging.WARNING or record.exc_info] == []


async def test_a_real_daemon_takes_a_renewed_certificate_at_sighup(tmp_path: Path, authority: Authority) -> None:
    files = {"cert_file": str(authority.files.cert_file), "key_file": str(authority.files.key_file)}
    config = configuration(tmp_path / "daemon", [], http={"tls": files})
    before = authority.issue()
    async with daemon(tmp_path / "daemon", config) as running:
        host, port = running.address.rsplit(":", 1)

        async def shown() -> bytes:
            _, writer = await asyncio.open_connection(host, int(port), ssl=authority.client())
            seen = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
            await writer.wait_closed()
            return bytes(seen)

        async def told() -> bool:
            return any("holds no PEM private key" in line for line in running.log)

        async def renewed() -> bool:
            return await shown() == after

        assert await shown() == before
        good = authority.files.key_file.read_bytes()
        authority.files.key_file.write_bytes(b"half a file")
        running.process.send_signal(signal.SIGHUP)
        await until(told, lambda: running.log)
        assert await shown() == before
        authority.files.key_file.write_bytes(good)
        after = authority.issue(RSA)
        running.process.send_signal(signal.SIGHUP)
        await until(renewed, lambda: running.log)
