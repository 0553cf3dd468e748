"""The command line from outside: each command as its users type it, against one real daemon and the simulator."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest
import serial
import yaml

import gatewayd
from gatewayd.cli import COMMANDS
from gatewayd.commands import control
from gatewayd.config import DEFAULT_PATH, parse
from tests.daemon import configuration

ROOT = Path(__file__).parents[1]
LIMIT_S = 60
REFUSED = "098123404"
SILENT = "098123406"
LISTENING = re.compile(r"HTTP on (\S+)")


def environment(**changes: str) -> dict[str, str]:
    """That of a user who has set nothing."""
    kept = {name: value for name, value in os.environ.items() if name not in {"GATEWAYD_SOCKET", "COLUMNS"}}
    return kept | {"PYTHONPATH": str(ROOT), "TZ": "UTC"} | changes


def gateway(*arguments: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `gatewayd ARGUMENTS` to its end. Nothing that a user can do may end in a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "gatewayd", *arguments],
        capture_output=True, text=True, timeout=LIMIT_S, env=env or environment(), **options,
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done


@dataclass
class Running:
    """A daemon that runs, and how to speak to it."""

    directory: Path
    address: str
    keys: dict[str, str]

    @property
    def config(self) -> str:
        return str(self.directory / "gatewayd.yaml")

    @property
    def socket(self) -> str:
        return str(self.directory / "control.sock")

    def __call__(self, command: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """`gatewayd COMMAND … --socket`, for the commands that speak to the daemon."""
        return gateway(command, "--socket", self.socket, *arguments, **options)

    def send(self, to: str, text: str, *options: str) -> int:
        done = self("send", "--json", *options, to, text)
        assert done.returncode == 0, done.stderr
        return int(json.loads(done.stdout)["idm"])

    def explained(self, idm: int, met: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Ask `explain` until `met`."""
        deadline = time.monotonic() + LIMIT_S
        found: dict[str, Any] = {}
        while time.monotonic() < deadline:
            found = json.loads(self("explain", str(idm), "--json").stdout)
            if met(found):
                return found
        raise AssertionError(f"did not happen; last seen: {found}")


def collect(stream: IO[str], lines: list[str]) -> None:
    for line in stream:
        lines.append(line)


@contextlib.contextmanager
def started(
    mark: re.Pattern[str], *arguments: str, **options: Any
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Start `gatewayd ARGUMENTS`, wait for a line with `mark` in its output; end it at exit."""
    process = subprocess.Popen(
        [sys.executable, "-m", "gatewayd", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True, **{"env": environment(), **options},
    )  # fmt: skip
    assert process.stdout is not None
    lines: list[str] = []
    reading = threading.Thread(target=collect, args=(process.stdout, lines))
    try:
        for line in process.stdout:
            lines.append(line)
            if mark.search(line):
                break
        else:
            raise AssertionError(f"it ended: {''.join(lines)}")
        reading.start()
        yield process, lines
    finally:
        process.terminate()
        try:
            process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if reading.ident is not None:
            reading.join()
        process.stdout.close()


@pytest.fixture(scope="module")
def daemon() -> Iterator[Running]:
    """One daemon with two emulated modems, for all tests here. Its API keys: app (send, read), gone (revoked)."""
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        directory = Path(folder)
        modems = ["simulate", "--modems", "2", "--dir", f"{folder}/sim", "--latency-ms", "0", "--report-delay-ms", "0"]
        with started(re.compile("^ready$"), *modems) as (_, lines):
            ports = [line.split()[0] for line in lines[:2]]
            key_file = directory / "keys"
            http = {"listen": "127.0.0.1:0", "trusted_networks": [], "api_keys_file": str(key_file)}
            config = directory / "gatewayd.yaml"
            config.write_text(yaml.safe_dump(configuration(directory, ports, http=http)))
            keys = {}
            for name, *scopes in (["app", "--scope", "send", "--scope", "read"], ["gone"]):
                made = gateway("apikey", "new", name, *scopes, "--file", str(key_file))
                assert made.returncode == 0, made.stderr
                keys[name] = made.stdout.strip()
            assert gateway("apikey", "revoke", "gone", "-c", str(config)).returncode == 0
            with started(LISTENING, "run", "-c", str(config)) as (_, log):
                found = LISTENING.search(log[-1])
                assert found is not None
                yield Running(directory, found[1], keys)


# What needs no daemon


def test_version_and_help_of_every_command() -> None:
    assert gateway("--version").stdout == f"gatewayd {gatewayd.__version__}\n"
    listed = gateway("-h").stdout
    assert all(re.search(rf"^  {re.escape(name)} ", listed, re.MULTILINE) for name in COMMANDS)
    shown = gateway("send", "-h")
    assert shown.returncode == 0
    assert "[env: GATEWAYD_SOCKET]" in shown.stdout, "square brackets are no markup"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope"], "No such command"),
        (["explain"], "Missing argument"),
        (["explain", "x"], "IDM"),
        (["explain", "0"], "IDM"),
        (["messages", "--state", "nope"], "none of 0 none, 1 to process"),
        (["pause"], "--all"),
        (["send", "098344484"], "Missing argument"),
        (["explain", "1", "-c", "/nonexistent.yaml"], "/nonexistent.yaml: cannot be read"),
        (["run", "-c", "/nonexistent.yaml"], "/nonexistent.yaml: cannot be read"),
    ],
)
def test_wrong_arguments_exit_2(arguments: list[str], said: str) -> None:
    done = gateway(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_no_daemon_says_so(tmp_path: Path) -> None:
    nobody = str(tmp_path / "none.sock")
    for command in (["channels"], ["status"], ["resume"], ["send", "098344484", "x"], ["explain", "1"], ["messages"]):
        done = gateway(*command, "--socket", nobody)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"no daemon answers at {nobody}; is gatewayd running?")
    left = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(left))
    assert "no daemon answers" in gateway("status", env=environment(GATEWAYD_SOCKET=str(left))).stderr


def test_the_defaults_are_those_of_the_configuration() -> None:
    assert control.DEFAULT_CONFIG == DEFAULT_PATH
    smallest = parse("spool: {url: 'sqlite:////x/y.db'}\nhttp: {listen: '127.0.0.1:1'}\nchannels: []\n")
    assert smallest.gateway.control_socket == control.DEFAULT_SOCKET


def test_a_short_command_does_not_load_the_daemon(tmp_path: Path) -> None:
    """It starts at once: the daemon's libraries take most of a second."""
    arguments = [sys.executable, "-X", "importtime", "-m", "gatewayd", "explain", "1", "--socket", str(tmp_path / "x")]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(), timeout=LIMIT_S)
    assert "no daemon answers" in done.stderr
    loaded = set(re.findall(r"\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "gatewayd.commands.control" in loaded
    assert loaded.isdisjoint({"sqlalchemy", "alembic", "aiohttp", "phonenumbers", "asyncio", "gatewayd.config"})


def test_who_may_not_use_the_socket_is_told_whom_to_be(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o700)
    if os.getuid():
        locked.chmod(0)
        done = gateway("status", "--socket", str(locked / "control.sock"))
    else:
        # What it imports may be out of another user's reach: first load it, then become that user
        script = (
            "import contextlib, os, sys; from gatewayd.cli import app, main\n"
            "with contextlib.suppress(BaseException): app(['status', '--socket', '/nonexistent/x'])\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534); main()"
        )
        arguments = [sys.executable, "-c", script, "status", "--socket", str(locked / "control.sock")]
        done = subprocess.run(arguments, capture_output=True, text=True, env=environment(), timeout=LIMIT_S)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("permission denied: be root or in the group gatewayd")


def test_ctrl_c_ends_a_command_that_waits(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(tmp_path / "s"))
        deaf.listen()
        deaf.settimeout(LIMIT_S)
        process = subprocess.Popen(
            [sys.executable, "-m", "gatewayd", "explain", "1", "--socket", str(tmp_path / "s")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip
        caller, _ = deaf.accept()
        with caller:
            assert caller.recv(1000).startswith(b"GET /api/v1/messages/1 ")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out, "Traceback" in err) == (130, "", False)


def test_what_is_no_gatewayd_is_not_believed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "s"))
        other.listen()
        answering = threading.Thread(target=_answer_once, args=(other, b"HTTP/1.0 200 OK\r\n\r\n<html>"))
        answering.start()
        done = gateway("status", "--socket", str(tmp_path / "s"))
        answering.join()
    assert (done.returncode, done.stderr) == (1, f"what answers at {tmp_path / 's'} is no gatewayd\n")


def _answer_once(listener: socket.socket, answer: bytes) -> None:
    caller, _ = listener.accept()
    with caller:
        caller.recv(1000)
        caller.sendall(answer)


def test_check_config(tmp_path: Path) -> None:
    good = gateway("check-config", str(ROOT / "config/gatewayd.yaml"))
    assert good.returncode == 0
    assert good.stdout.startswith("ok: ")
    bad = tmp_path / "bad.yaml"
    bad.write_text("spool: {url: 'sqlite:////x/y.db'}\nhttp: {listen: nonsense}\nchannels: []\nteams: []\n")
    done = gateway("check-config", str(bad))
    assert done.returncode == 2
    assert [line.split(": ")[:2] for line in done.stdout.splitlines()] == [
        [f"{bad}:2", "http.listen"],
        [f"{bad}:4", "teams"],
    ]
    assert gateway("check-config", str(tmp_path / "none")).returncode == 2


def test_the_schema_and_manual_in_the_repository_are_those_the_program_makes() -> None:
    assert gateway("config", "schema").stdout == (ROOT / "config/gatewayd.schema.json").read_text()
    assert gateway("config", "docs").stdout in (ROOT / "docs/configuration.md").read_text()


def test_pdu_there_and_back() -> None:
    encoded = gateway("pdu", "encode", "+59898344484", "Hello from gatewayd", "--report")
    length, pdu = encoded.stdout.split()
    assert int(length) == len(pdu) // 2 - 1
    decoded = gateway("pdu", "decode", "--json", input=f"{pdu}\nzz\n")
    assert decoded.returncode == 1, "one of them is none"
    good, bad = map(json.loads, decoded.stdout.splitlines())
    assert (good["text"], good["destination"]) == ("Hello from gatewayd", "+59898344484")
    assert bad["error"]


def test_simulate_serves_any_serial_program(tmp_path: Path) -> None:
    with (
        started(re.compile("^ready$"), "simulate", "--dir", str(tmp_path), "--latency-ms", "0") as (process, lines),
        serial.Serial(lines[0].split()[0], timeout=LIMIT_S) as modem,
    ):
        modem.write(b"ATE0\r")
        assert modem.read_until(b"OK\r\n").endswith(b"OK\r\n")
        length, pdu = gateway("pdu", "encode", "+59898344484", "by hand").stdout.split()
        modem.write(f"AT+CMGS={length}\r".encode())
        assert modem.read_until(b"> ").endswith(b"> ")
        modem.write(pdu.encode() + b"\x1a")
        assert b"+CMGS: " in modem.read_until(b"OK\r\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT_S) == 0
    rows = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [row["text"] for row in rows if row["kind"] == "submit"] == ["by hand"]
    assert gateway("simulate", "--dir", str(tmp_path), "--modems", "0").returncode == 2


# The commands that speak to the daemon


def test_send_and_explain(daemon: Running) -> None:
    done = daemon("send", "098344484", "Hello", "--client-ref", "hello-1")
    assert done.returncode == 0
    found = re.fullmatch(r"idm (\d+) to \+59898344484, 1 segment\n", done.stdout)
    assert found is not None, done.stdout
    idm = int(found[1])
    detail = daemon.explained(idm, lambda message: message["delivery"] == "delivered")
    assert detail["caller"].startswith(f"uid {os.getuid()}")
    sentence, state, _, *table = daemon("explain", str(idm)).stdout.splitlines()
    assert sentence.startswith(f"{idm} to +59898344484: Delivered ")
    assert state == "state 2 (processed), delivery delivered"
    assert table[0].split("  ")[0] == "when (UTC)"
    events = [event["event"] for event in detail["events"]]
    assert events == ["accepted", "intent", "sent", "report: delivered"]
    assert all(event in line for event, line in zip(events, table[1:], strict=True))


def test_what_the_daemon_refuses_is_said_in_words(daemon: Running) -> None:
    for arguments, said in (
        (["098344484", ""], "text: is empty"),
        (["12345678901234567890", "x"], "to: "),
        (["098344484", "x", "--channel", "nope"], "channel: there is no channel 'nope'; there are m0, m1"),
        (["098344484", "x", "--class", "nope"], "class: "),
        (["098344484", "x", "--not-before", "tomorrow"], "not_before: "),
        (["098344484", b"\xff".decode(errors="surrogateescape")], "text: "),
    ):
        done = daemon("send", *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(said)
    unknown = daemon("explain", "999999")
    assert (unknown.returncode, unknown.stderr) == (1, "there is no message 999999 (older than retention?)\n")
    assert daemon("explain", "9" * 30).returncode == 1


def test_messages_by_state_reference_and_position(daemon: Running) -> None:
    first = daemon.send(REFUSED, "no", "--client-ref", "list")
    second = daemon.send("098344484", "yes", "--client-ref", "list")
    daemon.explained(first, lambda message: message["state"] == 5)
    daemon.explained(second, lambda message: message["delivery"] == "delivered")

    def listed(*options: str) -> list[int]:
        done = daemon("messages", "--json", "--client-ref", "list", *options)
        assert done.returncode == 0, done.stderr
        return [json.loads(line)["idm"] for line in done.stdout.splitlines()]

    assert listed() == [first, second], "the newest last"
    assert listed("--limit", "1") == [second]
    assert listed("--after", "0", "--limit", "1") == [first]
    assert listed("--state", "failed") == listed("--state", "5") == [first]
    assert listed("--state", "in-doubt") == listed("--after", "9" * 18) == []
    head, row = daemon("messages", "--client-ref", "list", "--state", "failed").stdout.splitlines()
    assert head.split() == ["idm", "to", "state", "delivery", "channel", "accepted", "(UTC)", "text"]
    assert row.startswith(f"{first} ")
    assert row.endswith("  no")


def test_without_the_daemon_the_spool_is_read_and_that_is_said(daemon: Running, tmp_path: Path) -> None:
    idm = daemon.send("098344484", "offline", "--client-ref", "offline")
    daemon.explained(idm, lambda message: message["delivery"] == "delivered")
    elsewhere = yaml.safe_load(Path(daemon.config).read_text())
    elsewhere["gateway"]["control_socket"] = str(tmp_path / "none.sock")
    config = tmp_path / "c.yaml"
    config.write_text(yaml.safe_dump(elsewhere))
    said = f"no daemon answers at {tmp_path / 'none.sock'}: this is read from the spool\n"
    listed = gateway("messages", "--json", "--client-ref", "offline", "-c", str(config))
    assert (listed.returncode, listed.stderr, json.loads(listed.stdout)["idm"]) == (0, said, idm)
    explained = gateway("explain", str(idm), "-c", str(config))
    assert (explained.returncode, explained.stderr) == (0, said)
    assert explained.stdout.startswith(f"{idm} to +59898344484: Delivered ")
    unknown = gateway("explain", "9" * 30, "-c", str(config))
    assert (unknown.returncode, unknown.stderr) == (
        1,
        f"{said}there is no message {'9' * 30} (older than retention?)\n",
    )
    assert gateway("channels", "-c", str(config)).returncode == 1
    assert gateway("explain", str(idm), "-c", daemon.config).stderr == "", "this one's daemon answers"
    elsewhere["spool"]["url"] = f"sqlite:///{tmp_path}/none.db"
    config.write_text(yaml.safe_dump(elsewhere))
    none = gateway("messages", "-c", str(config))
    assert none.returncode == 1
    assert none.stderr == f"{said}the spool {tmp_path}/none.db cannot be read: No such file or directory\n"


def test_an_explicit_socket_never_means_another_daemons_spool(daemon: Running, tmp_path: Path) -> None:
    """GATEWAYD_SOCKET of a daemon that is down, and a configuration said: the configuration counts."""
    env = environment(GATEWAYD_SOCKET=str(tmp_path / "none"))
    assert gateway("status", env=env).returncode == 1
    assert gateway("status", "-c", daemon.config, env=env).returncode == 0
    assert gateway("status", env=environment(GATEWAYD_SOCKET=daemon.socket)).returncode == 0


def test_status_channels_pause_and_resume(daemon: Running) -> None:
    channels = [json.loads(line) for line in daemon("channels", "--json").stdout.splitlines()]
    assert [(channel["name"], channel["state"]) for channel in channels] == [("m0", "ready"), ("m1", "ready")]
    head, *rows = daemon("channels").stdout.splitlines()
    assert head.split()[:2] == ["channel", "state"]
    assert [row.split()[:2] for row in rows] == [["m0", "ready"], ["m1", "ready"]]
    try:
        assert daemon("pause", "--all", "--reason", "night [x]").returncode == 0
        idm = daemon.send("098344484", "later")
        held = daemon("explain", str(idm)).stdout
        assert "night [x]" in held
        for command in ("status", "channels"):
            assert re.search(r"paused by uid .*night \[x\]; nothing is sent", daemon(command).stdout)
        assert json.loads(daemon("status", "--json").stdout)["messages"]["to_process"] >= 1
    finally:
        assert daemon("resume").stdout == "sending again\n"
    daemon.explained(idm, lambda message: message["delivery"] == "delivered")
    assert "\nnot paused\n" in daemon("status").stdout


def test_accepting_a_sim_that_was_not_changed(daemon: Running) -> None:
    for name, said in (("m0", "no other SIM"), ("nope", "no channel 'nope'"), ("a/b?c", "no channel 'a/b?c'")):
        done = gateway("channels", "accept", name, "--socket", daemon.socket)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr


def test_api_keys_over_http(daemon: Running) -> None:
    def status(headers: dict[str, str], path: str = "/api/v1/messages") -> int:
        request = urllib.request.Request(f"http://{daemon.address}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
                return int(response.status)
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code

    assert status({"Authorization": f"Bearer {daemon.keys['app']}"}) == 200
    assert status({"Authorization": f"Bearer {daemon.keys['app']}"}, "/api/v1/status") == 403, "not in its scopes"
    assert status({"Authorization": f"Bearer {daemon.keys['gone']}"}) == 401, "revoked"
    assert status({"Authorization": "Bearer nonsense"}) == 401
    assert status({}) == 401
    listed = gateway("apikey", "list", "-c", daemon.config, "--json")
    assert [json.loads(line)["name"] for line in listed.stdout.splitlines()] == ["app"]
    assert daemon.keys["app"] not in listed.stdout + (daemon.directory / "keys").read_text()


# Terminals, pipes and character sets


@pytest.fixture
def odd(daemon: Running) -> int:
    """A message whose text wants to steer the terminal, is written from right to left and has pictures."""
    return daemon.send(SILENT, "\x1b[31mred [bold]b[/bold] :smile: \u202eevil عربي 👨‍👩‍👧\tend", "--client-ref", "odd")


def test_a_text_cannot_steer_the_terminal(daemon: Running, odd: int) -> None:
    shown = daemon("messages", "--client-ref", "odd").stdout
    assert "�[31mred [bold]b[/bold] :smile: �evil عربي 👨‍👩‍👧 end" in shown
    assert json.loads(daemon("explain", str(odd), "--json").stdout)["text"].startswith("\x1b[31mred")


def test_a_terminal_without_the_characters_gets_question_marks(daemon: Running, odd: int) -> None:
    for encoding in ("iso-8859-1", "ascii"):
        done = daemon("messages", "--client-ref", "odd", env=environment(PYTHONIOENCODING=encoding))
        assert done.returncode == 0
        assert ":smile:" in done.stdout
    assert gateway("-h", env=environment(PYTHONIOENCODING="ascii")).returncode == 0


@pytest.mark.parametrize("width", [40, 80])
def test_a_narrow_terminal_does_not_cut_the_idm(daemon: Running, odd: int, width: int) -> None:
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    arguments = [sys.executable, "-m", "gatewayd", "messages", "--socket", daemon.socket, "--client-ref", "odd"]
    process = subprocess.Popen(arguments, stdout=terminal, stderr=terminal, env=environment(TERM="xterm"))
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the last one has closed the terminal
        while data := os.read(controller, 65536):
            shown += data
    os.close(controller)
    assert process.wait(LIMIT_S) == 0
    assert b"\x1b[31m" not in shown
    lines = [line for line in shown.decode().splitlines() if line.startswith(f"{odd} ")]
    assert len(lines) == 1
    assert "+59898123406" in lines[0]
    assert "…" in lines[0], "the text is cut to what room there is"


def test_a_pipe_that_closes_and_a_disk_that_is_full(daemon: Running) -> None:
    body = json.dumps([{"to": "098344484", "text": "x" * 150, "not_before": "2099-01-01T00:00:00Z"}] * 300).encode()
    headers = {"Authorization": f"Bearer {daemon.keys['app']}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"http://{daemon.address}/api/v1/messages", body, headers)
    with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
        assert response.status == 202
    for options in (["--json"], []):
        arguments = ["messages", "--limit", "1000", "--socket", daemon.socket, *options]
        process = subprocess.Popen(
            [sys.executable, "-m", "gatewayd", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        with process.stderr:
            assert process.stderr.read() == b""
        assert process.wait(LIMIT_S) in {0, 1}
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [sys.executable, "-m", "gatewayd", *arguments],
                stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), timeout=LIMIT_S,
            )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, "gatewayd: No space left on device\n")


# The daemon that cannot start, and the demo


def test_run_says_what_keeps_it_from_starting(daemon: Running, tmp_path: Path) -> None:
    """Exit status 1, and not the 2 of a faulty configuration: it may be otherwise at the next try."""

    def refused(**changes: Any) -> str:
        config = configuration(tmp_path, ["/dev/null"], **changes)
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
        done = gateway("run", "-c", str(tmp_path / "c.yaml"))
        assert done.returncode == 1
        return done.stderr.splitlines()[-1]

    none = tmp_path / "none"
    assert f"gateway.control_socket: there is no folder {none}" in refused(gateway={"control_socket": f"{none}/s"})
    assert f"spool.url: there is no folder {none}" in refused(url=f"sqlite:///{none}/spool.db")
    assert f"http.listen: cannot listen on {daemon.address}: " in refused(http={"listen": daemon.address})
    assert "in use" in refused(url=f"sqlite:///{daemon.directory}/spool.db")


def test_what_the_daemon_writes_is_not_for_everybody(daemon: Running) -> None:
    files = [path for path in daemon.directory.iterdir() if path.name.startswith("spool.db")]
    assert files
    assert not any(path.stat().st_mode & 0o007 for path in files)


def test_the_demo_from_its_first_line_to_ctrl_c() -> None:
    ready = re.compile("Ctrl-C ends it")
    with tempfile.TemporaryDirectory(prefix="gw") as folder:
        env = environment(TMPDIR=folder)
        with started(ready, "demo", "--port", "0", env=env) as (process, lines):
            shown = "".join(lines)
            curl = re.search(r"curl -d (\S+) --data-urlencode 'message=([^']*)' (\S+)", shown)
            assert curl is not None
            body = f"{curl[1]}&message={curl[2].replace(' ', '+')}".encode()
            with urllib.request.urlopen(curl[3], body, timeout=LIMIT_S) as response:
                assert json.loads(response.read())["idm"] == 1
            assert re.search(r"^    \S+ -m gatewayd explain 1$", shown, re.MULTILINE)
            deadline = time.monotonic() + LIMIT_S
            while ": Delivered " not in gateway("explain", "1", env=env).stdout:
                assert time.monotonic() < deadline
            with started(ready, "demo", "--port", "0", env=env) as (second, more):
                assert re.search(r"^    GATEWAYD_SOCKET=\S+ \S+ -m gatewayd explain 1$", "".join(more), re.MULTILINE)
                emulated = _children(second.pid)
                assert len(emulated) == 1
                second.kill()
                _await_end(emulated[0])
            assert gateway("explain", "1", env=env).returncode == 0, "the first one is still found"
            os.killpg(process.pid, signal.SIGINT)  # what a terminal does
            assert process.wait(LIMIT_S) == 0
        assert not any("Traceback" in line for line in lines)
        left = [path.name for path in Path(folder).iterdir() if path.name != f"gatewayd-demo-{os.getuid()}"]
        assert len(left) == 1, "only that of the one that was killed"


def test_the_demo_puts_nothing_into_a_folder_that_others_can_write(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    folder = tmp_path / f"gatewayd-demo-{os.getuid()}"
    assert control.demo_link() is None
    assert control.demo_link(make=True) == folder / "control.sock"
    folder.chmod(0o777)
    assert control.demo_link() is None
    folder.chmod(0o700)
    assert control.demo_link() == folder / "control.sock"
    folder.rename(tmp_path / "real")
    folder.symlink_to(tmp_path / "real")
    assert control.demo_link(make=True) is None


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _await_end(pid: int) -> None:
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([watched], [], [], LIMIT_S)[0], f"process {pid} goes on"
    finally:
        os.close(watched)
