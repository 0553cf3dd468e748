"""API keys: the file they are in, finding one, and the commands that make and revoke them."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from gatewayd import apikeys
from gatewayd.apikeys import KeyRing, Rate, Scope, add_key, load_keys, new_key, remove_key
from gatewayd.commands.config import apikey_app
from gatewayd.errors import ConfigError

DIGEST = "9f" * 32
OTHER = "60" * 32
GOOD = f"crm sha256={DIGEST} scopes=send,read created=2026-11-23T12:00:00Z"


def key_file(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "api-keys"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(0o600)
    return path


def faults_of(path: Path) -> list[tuple[int | None, str, str]]:
    with pytest.raises(ConfigError) as caught:
        load_keys(path)
    assert caught.value.source == str(path)
    return [(fault.line, fault.path, fault.reason) for fault in caught.value.faults]


def test_file_is_read(tmp_path: Path) -> None:
    text = (
        f"# all keys\n\n  {GOOD}\r\nops created=2026-01-02T03:04:05Z scopes=admin in_doubt_resend=true sha256={OTHER}\n"
    )
    crm, ops = load_keys(key_file(tmp_path, text + "# ñ\n"))
    assert (crm.name, crm.sha256, crm.scopes) == ("crm", DIGEST, {Scope.SEND, Scope.READ})
    assert (crm.created, crm.in_doubt_resend) == (datetime(2026, 11, 23, 12, tzinfo=UTC), False)
    assert (ops.name, ops.in_doubt_resend) == ("ops", True)
    assert [scope for scope in Scope if crm.allows(scope)] == [Scope.SEND, Scope.READ]
    assert all(ops.allows(scope) for scope in Scope)
    assert crm.record() == GOOD


def test_secret_is_found_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "api-keys"
    made = [new_key(f"key{number}", ["send"]) for number in range(3)]
    for _, record in made:
        add_key(path, record)
    ring = load_keys(path)
    assert len(ring) == 3
    for number, (secret, _) in enumerate(made):
        found = ring.find(secret)
        assert found is not None
        assert found.name == f"key{number}"
        assert ring.find(secret + " ") is None
        assert ring.find(secret[:-1]) is None
        assert ring.find(found.sha256) is None
    assert ring.find("") is None
    assert ring.find("\udcff\ud800") is None  # what an HTTP header may hold
    assert KeyRing().find(made[0][0]) is None


def test_all_digests_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [new_key(f"key{number}", ["send"]) for number in range(4)]
    keys, _ = apikeys._parse("\n".join(record for _, record in pairs).encode())
    compared = []

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return left == right

    monkeypatch.setattr("hmac.compare_digest", compare)
    found = KeyRing(keys).find(pairs[0][0])
    assert found is not None
    assert found.name == "key0"
    assert len(compared) == 4


def test_new_key_has_256_random_bits_and_only_its_digest_is_kept() -> None:
    secrets = {new_key("a", ["send"])[0] for _ in range(100)}
    assert len(secrets) == 100
    for secret in secrets:
        assert re.fullmatch(r"gw_[A-Za-z0-9_-]{43}", secret)
        assert len(base64.urlsafe_b64decode(secret.removeprefix("gw_") + "=")) == 32
    secret, record = new_key("a", [Scope.READ, "send"], in_doubt_resend=True, now=datetime(2026, 11, 23, tzinfo=UTC))
    digest = hashlib.sha256(secret.encode()).hexdigest()
    assert record == f"a sha256={digest} scopes=send,read created=2026-11-23T00:00:00Z in_doubt_resend=true"


@pytest.mark.parametrize(
    ("name", "scopes"), [("a b", ["send"]), ("", ["send"]), ("a", []), ("a", ["write"]), ("#", ["send"])]
)
def test_new_key_refuses(name: str, scopes: list[str]) -> None:
    with pytest.raises(ConfigError):
        new_key(name, scopes)


@pytest.mark.parametrize(
    ("line", "where", "fragment"),
    [
        ("crm", "crm", "sha256 is required"),
        ("gw_secret-that-was-pasted/", "", "a name of 1 to 32 letters"),
        (GOOD.replace("9f", "9F", 1), "crm", "64 hexadecimal digits"),
        (GOOD.replace("9f", "", 1), "crm", "64 hexadecimal digits"),
        (GOOD.replace("send,read", "send,write"), "crm", "one or more of send, read, admin"),
        (GOOD.replace("send,read", ""), "crm", "one or more of send, read, admin"),
        (GOOD.replace("send,read", "send, read"), "crm", "without spaces"),
        (GOOD.replace("12:00:00Z", "12:00"), "crm", "a UTC time such as"),
        (GOOD.replace("2026-11-23", "2026-02-30"), "crm", "a UTC time such as"),
        (GOOD + " in_doubt_resend=yes", "crm", "true or false"),
        (GOOD + " scopes=read", "crm", "given twice"),
        (GOOD + " expires=2027-01-01T00:00:00Z", "crm", "expires: not in this version"),
        (GOOD + " networks=10.0.0.0/8", "crm", "networks: not in this version"),
        (GOOD + " rate=10", "crm", "such as 10/s or 600/min"),
        (GOOD + " rate=0/s", "crm", "such as 10/s or 600/min"),
        (GOOD + " rate=10/h", "crm", "such as 10/s or 600/min"),
        (GOOD + " rate=1.5/s", "crm", "such as 10/s or 600/min"),
        (GOOD + " rate=10/s rate=20/s", "crm", "rate is given twice"),
        (GOOD + " segments_per_day=0", "crm", "segments_per_day: a whole number from 1"),
        (GOOD + " segments_per_day=5k", "crm", "segments_per_day: a whole number from 1"),
        (GOOD + " segments_per_hour=-1", "crm", "segments_per_hour: a whole number from 1"),
        (GOOD + " segments_per_hour=", "crm", "segments_per_hour: a whole number from 1"),
        (GOOD + " colour=red", "crm", "may follow the name"),
        (GOOD.replace("crm", "crn", 1), "crn", "the same key is on line 1 already"),
        (GOOD.replace(DIGEST, OTHER), "crm", "the name is on line 1 already"),
        ("ñandú " + GOOD, "", "is not ASCII"),
    ],
)
def test_faults_of_a_line(tmp_path: Path, line: str, where: str, fragment: str) -> None:
    before = GOOD if "already" in fragment else "# a comment"
    found = faults_of(key_file(tmp_path, f"{before}\n{line}\n"))
    assert all(number == 2 and path == where for number, path, _ in found), found
    assert any(fragment in reason for _, _, reason in found), found


def test_limits_of_a_key(tmp_path: Path) -> None:
    path = key_file(tmp_path, f"{GOOD} segments_per_day=5000 rate=600/min segments_per_hour=900\n")
    (key,) = load_keys(path)
    assert (key.rate, key.segments_per_hour, key.segments_per_day) == (Rate(600, "min"), 900, 5000)
    assert key.record() == f"{GOOD} rate=600/min segments_per_hour=900 segments_per_day=5000"
    assert load_keys(path).named("crm") == key
    assert load_keys(path).named("host 127.0.0.1") is None


@pytest.mark.parametrize(
    ("text", "per_s", "burst"), [("10/s", 10, 10), ("600/min", 10, 10), ("1/s", 1, 1), ("6/min", 0.1, 1)]
)
def test_a_rate_allows_a_seconds_worth_at_once(text: str, per_s: float, burst: float) -> None:
    rate = Rate.parse(text)
    assert (rate.per_s, rate.burst, str(rate)) == (per_s, burst, text)


def test_all_faults_are_reported_and_no_secret_is(tmp_path: Path) -> None:
    found = faults_of(key_file(tmp_path, f"crm gw_thesecretitself\n\nops sha256={OTHER} scopes=x created=now\n"))
    assert {line for line, _, _ in found} == {1, 3}
    assert len(found) >= 5
    assert "gw_thesecretitself" not in str(found)


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: f"{GOOD}\n{text}".encode("utf-8", "replace")))
def test_any_octets_give_keys_or_faults(data: bytes) -> None:
    keys, faults = apikeys._parse(data)
    assert all(fault.reason and fault.line for fault in faults)
    again, none = apikeys._parse("\n".join(key.record() for key in keys).encode())
    if not faults:
        assert (again, none) == (keys, [])


def test_file_must_be_there_and_private(tmp_path: Path) -> None:
    path = tmp_path / "api-keys"
    assert faults_of(path) == [(None, "", "cannot be read: No such file or directory")]
    key_file(tmp_path, GOOD)
    for mode in (0o604, 0o602, 0o644):
        path.chmod(mode)
        assert f"mode {mode:04o}" in faults_of(path)[0][2]
    path.chmod(0o640)
    assert len(load_keys(path)) == 1
    assert "no regular file" in faults_of(tmp_path)[0][2]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    assert "no regular file" in faults_of(pipe)[0][2]  # and does not wait for a writer
    key_file(tmp_path, b"#" * ((1 << 20) + 1))
    assert "larger" in faults_of(path)[0][2]


def test_adding_keeps_what_is_there(tmp_path: Path) -> None:
    path = key_file(tmp_path, f"# ours: ñ\n{GOOD}")  # no newline at the end
    path.chmod(0o640)
    before = path.stat()
    _, record = new_key("ops", ["admin"])
    add_key(path, record)
    assert path.read_text() == f"# ours: ñ\n{GOOD}\n{record}\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_ino != before.st_ino  # replaced, not written into
    assert (path.stat().st_uid, path.stat().st_gid) == (before.st_uid, before.st_gid)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["api-keys"]


def test_new_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        add_key(tmp_path / "api-keys", new_key("a", ["send"])[1])
    finally:
        os.umask(old)
    assert (tmp_path / "api-keys").stat().st_mode & 0o777 in ({0o600, 0o640} if os.geteuid() == 0 else {0o600})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_can_be_read_by_the_group_of_the_folder(tmp_path: Path) -> None:
    os.chown(tmp_path, 0, 12345)
    path = tmp_path / "api-keys"
    add_key(path, new_key("a", ["send"])[1])
    assert (path.stat().st_gid, path.stat().st_mode & 0o777) == (12345, 0o640)
    os.chown(path, 4321, 12345)
    add_key(path, new_key("b", ["send"])[1])
    assert (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o777) == (4321, 12345, 0o640)


def test_symbolic_link_stays_one(tmp_path: Path) -> None:
    real = key_file(tmp_path, GOOD + "\n")
    link = tmp_path / "link"
    link.symlink_to(real)
    add_key(link, new_key("ops", ["admin"])[1])
    assert link.is_symlink()
    assert len(load_keys(real)) == 2


def test_refused_change_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = key_file(tmp_path, GOOD + "\n")
    with pytest.raises(ConfigError, match="names must differ"):
        add_key(path, new_key("crm", ["send"])[1])
    with pytest.raises(ConfigError, match="no key of this name"):
        remove_key(path, "ops")
    with pytest.raises(OSError):
        add_key(tmp_path / "none" / "api-keys", GOOD)
    with pytest.raises(OSError):
        remove_key(tmp_path / "none", "crm")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        add_key(path, new_key("ops", ["send"])[1])
    assert path.read_text() == GOOD + "\n"
    assert [entry.name for entry in tmp_path.iterdir()] == ["api-keys"]


def test_two_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "api-keys"
    start = threading.Barrier(4)

    def add(who: int) -> None:
        start.wait(10)
        for number in range(5):
            add_key(path, new_key(f"w{who}-{number}", ["send"])[1])

    threads = [threading.Thread(target=add, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(load_keys(path)) == 20


def test_removing(tmp_path: Path) -> None:
    path = key_file(tmp_path, f"# crm comes first\n{GOOD}\nops{GOOD[3:].replace(DIGEST, OTHER)}\n")
    remove_key(path, "crm")
    assert path.read_text() == f"# crm comes first\nops{GOOD[3:].replace(DIGEST, OTHER)}\n"


# The commands.


def test_new_list_revoke(tmp_path: Path) -> None:
    path, run = tmp_path / "api-keys", CliRunner().invoke
    result = run(apikey_app, ["new", "crm", "--file", str(path), "--scope", "send", "--scope", "read"])
    assert result.exit_code == 0
    secret = result.stdout.strip()
    assert result.stdout == f"{secret}\n"  # nothing else, for scripts
    key = load_keys(path).find(secret)
    assert key is not None
    assert (key.name, key.scopes, key.in_doubt_resend) == ("crm", {Scope.SEND, Scope.READ}, False)
    assert abs((datetime.now(UTC) - key.created).total_seconds()) < 3600
    assert secret not in path.read_text()

    assert run(apikey_app, ["new", "alarm", "--file", str(path), "--in-doubt-resend"]).exit_code == 0
    shown = [json.loads(line) for line in run(apikey_app, ["list", "--file", str(path), "--json"]).stdout.splitlines()]
    assert [(row["name"], row["scopes"], row["in_doubt_resend"]) for row in shown] == [
        ("crm", ["send", "read"], False),
        ("alarm", ["send"], True),
    ]
    assert "alarm" in run(apikey_app, ["list", "--file", str(path)]).stdout

    limits = ["--rate", "10/s", "--segments-per-hour", "100", "--segments-per-day", "1000"]
    assert run(apikey_app, ["new", "shop", "--file", str(path), *limits]).exit_code == 0
    shown = [json.loads(line) for line in run(apikey_app, ["list", "--file", str(path), "--json"]).stdout.splitlines()]
    assert [shown[-1][word] for word in ("rate", "segments_per_hour", "segments_per_day")] == ["10/s", 100, 1000]
    assert [shown[0][word] for word in ("rate", "segments_per_hour", "segments_per_day")] == [None, None, None]
    assert "rate=10/s  segments_per_hour=100" in run(apikey_app, ["list", "--file", str(path)]).stdout

    assert run(apikey_app, ["revoke", "crm", "--file", str(path)]).exit_code == 0
    assert load_keys(path).find(secret) is None


def test_commands_take_the_file_from_the_configuration(tmp_path: Path) -> None:
    config, path = tmp_path / "gatewayd.yaml", tmp_path / "api-keys"
    text = f'spool: {{url: "sqlite:////x/y.db"}}\nhttp: {{api_keys_file: {path}}}\nchannels: []\n'
    config.write_text(text)
    assert CliRunner().invoke(apikey_app, ["new", "crm", "-c", str(config)]).exit_code == 0
    assert [key.name for key in load_keys(path)] == ["crm"]
    config.write_text(text.replace(f"api_keys_file: {path}", ""))
    result = CliRunner().invoke(apikey_app, ["list", "-c", str(config)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "http.api_keys_file: is not set" in result.stderr
    config.write_text(text + "gateways: {}\n")
    result = CliRunner().invoke(apikey_app, ["list", "-c", str(config)])
    assert result.exit_code == 2
    assert f"{config}:4: gateways: unknown key" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "fragment"),
    [
        (["new", "crm"], 2, "crm: the name is on line 1 already"),
        (["new", "a b"], 2, "a name of 1 to 32"),
        (["new", "ops", "--rate", "10"], 2, "ops: rate: messages per second or minute such as 10/s"),
        (["new", "ops", "--segments-per-day", "0"], 2, "ops: segments_per_day: a whole number from 1"),
        (["revoke", "ops"], 2, "ops: there is no key of this name"),
    ],
)
def test_refused_commands(tmp_path: Path, arguments: list[str], status: int, fragment: str) -> None:
    path = key_file(tmp_path, GOOD + "\n")
    result = CliRunner().invoke(apikey_app, [*arguments, "--file", str(path)])
    assert (result.exit_code, result.stdout) == (status, "")
    assert fragment in result.stderr


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(apikey_app, ["new", "crm", "--file", str(tmp_path / "none" / "api-keys")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert "No such file or directory" in result.stderr
