"""The configuration: what is read from a file, and every way a file can be wrong."""

from __future__ import annotations

import ipaddress
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
import typer
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from typer.testing import CliRunner

from gatewayd.commands.config import MARKER, app, check_config, schema_text
from gatewayd.config import (
    Channel,
    Config,
    Http,
    Listen,
    Pacing,
    Spool,
    TlsFiles,
    check,
    examine,
    load,
    manual,
    parse,
    tls_files,
)
from gatewayd.config.units import DURATION_UNITS_S, format_duration, parse_duration
from gatewayd.errors import ConfigError, Fault
from gatewayd.model import InDoubtPolicy

ROOT = Path(__file__).parent.parent
BAD = sorted((Path(__file__).parent / "config_bad").glob("*.yaml"))
LEAST = """\
spool: {url: "sqlite:////var/lib/gatewayd/spool.db"}
http: {}
channels: []
"""
CHANNEL = """\
spool: {url: "sqlite:////var/lib/gatewayd/spool.db"}
http: {}
channels:
  - name: sim1
    type: modem
    port: /dev/ttyUSB0
"""


def faults_of(text: str | bytes) -> list[Fault]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value.faults


def command() -> typer.Typer:
    root = typer.Typer()
    root.command("check-config")(check_config)
    root.add_typer(app, name="config")
    return root


# What is in a file that is fine.


def test_least_file_has_the_documented_defaults() -> None:
    config = parse(LEAST)
    assert config.gateway.instance == "gw1"
    assert config.gateway.home_country is None
    assert config.gateway.timezone == "UTC"
    assert (config.gateway.strict_numbers, config.gateway.allow_premium) == (False, False)
    assert config.gateway.max_segments == 10
    assert config.gateway.in_doubt.policy is InDoubtPolicy.FAIL
    assert config.gateway.in_doubt.wait_s == 15 * 60
    assert config.gateway.report_wait_s == 49 * 3600
    assert config.gateway.retry.attempts == 5
    assert config.gateway.retry.backoff_s == (10, 30, 120, 600, 1800)
    assert config.gateway.shutdown_timeout_s == 30
    kept = config.gateway.retention
    assert (kept.content_s, kept.messages_s, kept.inbound_s) == (90 * 86400, 400 * 86400, 400 * 86400)
    assert (kept.archive_dir, config.spool.witness) == (None, None)
    assert config.gateway.control_socket == Path("/run/gatewayd/control.sock")
    assert (config.gateway.logging.level.value, config.gateway.logging.mask) == ("info", True)
    assert config.http.listen == Listen("127.0.0.1", 8080)
    assert config.http.api_keys_file is None
    assert config.http.trusted_networks == config.http.trusted_proxies == ()
    assert config.http.max_body_octets == 1 << 20
    assert (config.http.tls, config.http.access_log) == (None, True)
    assert config.sims == config.channels == ()


def test_channel_defaults() -> None:
    (channel,) = parse(CHANNEL).channels
    assert (channel.name, channel.port, channel.baudrate, channel.enabled) == ("sim1", "/dev/ttyUSB0", 115200, True)
    assert (channel.number, channel.smsc) == (None, None)
    assert channel.pacing.interval_s == 6
    assert (channel.submit_timeout_s, channel.guard_time_s, channel.poll_interval_s) == (180, 0, 30)


def test_every_key_is_read() -> None:
    config = parse("""\
gateway:
  instance: gw-2.b
  home_country: UY
  timezone: America/Montevideo
  strict_numbers: true
  allow_premium: true
  max_segments: 255
  in_doubt: {policy: hold, wait: 1h}
  report_wait: 2d
  retry: {attempts: 3, backoff: [500ms, 1.5s, 0]}
  shutdown_timeout: 0s
  retention: {content: 0s, messages: 7d, inbound: 3660d, archive_dir: /srv/archive}
  control_socket: /run/x.sock
  logging: {level: debug, mask: false}
spool: {url: "postgresql://gatewayd@db.example.net:5433/gatewayd?sslmode=require", password_file: /etc/gatewayd/pw}
http:
  listen: "[::]:0"
  api_keys_file: /etc/gatewayd/api-keys
  trusted_networks: [10.0.0.0/8, 192.0.2.7, "fd00::/8"]
  trusted_proxies: ["::1"]
  tls: {cert_file: /etc/gatewayd/tls/fullchain.pem, key_file: /etc/gatewayd/tls/privkey.pem, min_version: 1.3}
  insecure_http: true
  max_body: 64 KiB
  access_log: false
sims:
  - {iccid: 8959801234567890123f, imsi: 001010123456789, number: 098344484, label: Antel ñandú}
channels:
  - name: 1
    type: modem
    port: /dev/serial/by-path/a
    baudrate: 9600
    number: +59899000001
    smsc: +59899000000
    enabled: false
    pacing: {interval: 0}
    submit_timeout: 2m
    guard_time: 100ms
    poll_interval: 1m
""")
    gateway = config.gateway
    assert (gateway.instance, gateway.home_country, gateway.timezone) == ("gw-2.b", "UY", "America/Montevideo")
    assert (gateway.strict_numbers, gateway.allow_premium, gateway.max_segments) == (True, True, 255)
    assert (gateway.in_doubt.policy, gateway.in_doubt.wait_s) == (InDoubtPolicy.HOLD, 3600)
    assert gateway.report_wait_s == 2 * 86400
    assert (gateway.retry.attempts, gateway.retry.backoff_s) == (3, (0.5, 1.5, 0))
    assert (gateway.shutdown_timeout_s, gateway.control_socket) == (0, Path("/run/x.sock"))
    assert (gateway.logging.level.value, gateway.logging.mask) == ("debug", False)
    assert config.spool.url == "postgresql://gatewayd@db.example.net:5433/gatewayd?sslmode=require"
    assert config.spool.password_file == Path("/etc/gatewayd/pw")
    kept = config.gateway.retention
    assert (kept.content_s, kept.messages_s, kept.inbound_s) == (0, 7 * 86400, 3660 * 86400)
    assert kept.archive_dir == Path("/srv/archive")
    assert config.http.listen == Listen("::", 0)
    assert config.http.api_keys_file == Path("/etc/gatewayd/api-keys")
    assert config.http.trusted_networks == tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "192.0.2.7/32", "fd00::/8")))
    assert config.http.trusted_proxies == (ipaddress.ip_network("::1"),)
    assert (config.http.insecure_http, config.http.max_body_octets) == (True, 65536)
    assert config.http.tls is not None
    assert tls_files(config.http.tls) == TlsFiles(
        Path("/etc/gatewayd/tls/fullchain.pem"), Path("/etc/gatewayd/tls/privkey.pem"), "1.3"
    )
    assert config.http.access_log is False
    (sim,) = config.sims
    # Unquoted digits keep their zeros; a national number is read with the home country (behaviours, decision 9).
    assert (sim.iccid, sim.imsi, sim.number) == ("8959801234567890123", "001010123456789", "+59898344484")
    assert sim.label == "Antel ñandú"
    (channel,) = config.channels
    assert (channel.name, channel.port, channel.baudrate) == ("1", "/dev/serial/by-path/a", 9600)
    assert (channel.number, channel.smsc, channel.enabled) == ("+59899000001", "+59899000000", False)
    assert channel.pacing.interval_s == 0
    assert (channel.submit_timeout_s, channel.guard_time_s, channel.poll_interval_s) == (120, 0.1, 60)


def test_values_are_plain_and_frozen() -> None:
    config = parse(CHANNEL)
    assert type(config.channels[0].name) is str
    with pytest.raises(ValidationError):
        config.channels[0].name = "other"  # type: ignore[misc]


def test_norway_needs_no_quotes() -> None:
    assert parse(LEAST + "gateway: {home_country: NO}").gateway.home_country == "NO"


@pytest.mark.parametrize("nothing", ["gateway:\n", "sims:\n", "gateway: {retry: , logging: null}\n", "sims: ~\n"])
def test_commented_out_blocks_are_empty(nothing: str) -> None:
    assert parse(LEAST + nothing) == parse(LEAST)


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [
        ("127.0.0.1:0", True),
        ("127.8.9.1:80", True),
        ("[::1]:80", True),
        ("localhost:80", True),
        ("192.0.2.1:80", False),
    ],
)
def test_listening_beyond_loopback_has_to_be_said(listen: str, loopback: bool) -> None:
    text = LEAST.replace("{}", f'{{listen: "{listen}"}}')
    if loopback:
        assert str(parse(text).http.listen) == listen
    else:
        assert [fault.path for fault in faults_of(text)] == ["http.listen"]
    for why in ("insecure_http: true", "tls: {cert_file: /x.pem, key_file: /x.key}"):
        config = parse(LEAST.replace("{}", f'{{listen: "{listen}", {why}}}'))
        assert config.http.listen.loopback is loopback


def test_code_can_build_models_by_attribute_name() -> None:
    channel = Channel(name="a", type="modem", port="/dev/x", pacing=Pacing(interval_s=0), submit_timeout_s=0.5)
    config = Config(
        spool=Spool(url="sqlite:////tmp/x.db"), http=Http(listen=Listen("127.0.0.1", 0)), channels=(channel,)
    )
    assert config.channels[0].pacing.interval_s == 0
    assert config.channels[0].submit_timeout_s == 0.5
    with pytest.raises(ValidationError):
        Pacing(interval_s=-1)
    with pytest.raises(ValidationError):
        Pacing(interval_s=float("nan"))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("0s", 0), ("500ms", 0.5), ("6s", 6), ("1.5s", 1.5), ("2m", 120), ("1h", 3600), ("7d", 604800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "6", "s", "6 s", "6S", "-6s", "+6s", "1e3s", "6sec", "1h30m", "٦s", "0.0", "00", ".5s"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="unit"):
        parse_duration(text)


@given(st.integers(0, 10**6), st.sampled_from(sorted(DURATION_UNITS_S)))
def test_durations_are_shown_as_they_can_be_written(count: int, unit: str) -> None:
    seconds = parse_duration(f"{count}{unit}")
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-6)


# What is wrong with a file.


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_each_bad_file_has_exactly_its_faults(path: Path) -> None:
    expected = re.findall(r"^# expect: (\S+) (.*?): (.+)$", path.read_text(), re.MULTILINE)
    assert expected
    with pytest.raises(ConfigError) as caught:
        load(path)
    found = [(str(fault.line or "-"), fault.path or "(top level)", fault.reason) for fault in caught.value.faults]
    assert sorted(item[:2] for item in found) == sorted(item[:2] for item in expected)
    for line, key, fragment in expected:
        assert any(item[:2] == (line, key) and fragment in item[2] for item in found), found
    assert caught.value.source == str(path)
    assert all("\n" not in str(fault) for fault in caught.value.faults)
    lines = [fault.line or 0 for fault in caught.value.faults]
    assert lines == sorted(lines)


def test_there_is_a_bad_file_for_every_key_of_a_later_version() -> None:
    text = "".join(path.read_text() for path in BAD)
    assert [key for key in Config.later if f"\n{key}: []" not in text] == []


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_passwords_are_not_repeated(path: Path) -> None:
    assert "hunter2" not in str(check(path))


@pytest.mark.parametrize(
    ("data", "line", "fragment"),
    [
        (b"a: 1\nb: \xff\n", 2, "not UTF-8: octet 0xFF"),
        (LEAST.encode("utf-16"), 1, "not UTF-8"),
        (b"a: b\n\x00", 2, "U+0000"),
        (b"#" * (1 << 20) + b"\n", None, "larger than"),
        (b'a: "\\UFFFFFFFF"', 1, "no valid YAML"),
        (b"%YAML 1." + b"9" * 5000 + b"\n---\n", 1, "no valid YAML"),
        (b"[" * 100_000, 1, "nested deeper"),
        (b'"\\ud800": 1\n', 1, "unknown key"),
        (b'gateway: {instance: "\\ud800"}\n', 1, "surrogate"),
    ],
)
def test_hostile_bytes(data: bytes, line: int | None, fragment: str) -> None:
    found = faults_of(data)
    assert any(fault.line == line and fragment in fault.reason for fault in found), found
    str(found).encode()  # can be printed


def test_byte_order_mark_is_no_fault() -> None:
    assert parse(b"\xef\xbb\xbf" + LEAST.encode()) == parse(LEAST)
    assert parse("\ufeff" + LEAST) == parse(LEAST)


def test_alias_bomb_is_refused_at_once() -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
    assert len(faults_of(LEAST + bomb)) < 200


@pytest.mark.parametrize("name", ["none.yaml", "", "a\0b"])
def test_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / name)


ODD_WORDS = r"""routes dinstar 6 true null ~ [::]:80 0 -1 1e9 &a *a << !!str !x %YAML --- ... | > ? , { } [ ] ' " \x"""
WORDS = st.sampled_from([*(ROOT / "config/gatewayd.yaml").read_text().split(), *ODD_WORDS.split()])
SEPARATORS = st.sampled_from([": ", "\n", "\n  ", "\n- ", "\n  - ", " ", ", ", "", "{", "}", "[", "]", "\t", "\r\n"])
YAMLISH = st.lists(st.tuples(WORDS, SEPARATORS), max_size=40).map(lambda pairs: "".join(a + b for a, b in pairs))
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


def config_or_error(source: str | bytes) -> None:
    try:
        config: Config | ConfigError = parse(source)
    except ConfigError as error:
        config = error
    if isinstance(config, Config):
        return
    assert config.faults
    assert all(fault.reason and "\n" not in str(fault) for fault in config.faults)
    assert all(fault.line is None or fault.line >= 1 for fault in config.faults)
    str(config).encode()


@given(st.one_of(st.text(), st.binary(), YAMLISH, YAMLISH.map(lambda text: LEAST + text)))
@settings(max_examples=400, deadline=None)
def test_any_text_gives_a_config_or_its_faults(source: str | bytes) -> None:
    config_or_error(source)


@pytest.mark.parametrize("odd", ["[]", "{}", "{a: 1}", "[[modem]]", "null", "*a", "!!str x"])
@pytest.mark.parametrize("key", ["name", "type", "port", "number", "pacing", "enabled"])
def test_any_kind_of_value_for_a_key_of_a_channel(key: str, odd: str) -> None:
    config_or_error(CHANNEL + f"  - {key}: {odd}\n")


@given(st.dictionaries(st.sampled_from(sorted(Config.model_fields)), TREES, max_size=5))
@settings(max_examples=400, deadline=None)
def test_any_tree_gives_a_config_or_its_faults(tree: dict[str, object]) -> None:
    config_or_error(json.dumps(tree, ensure_ascii=False).encode("utf-8", "replace"))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_good_file_with_one_value_replaced(data: st.DataObject) -> None:
    lines = (ROOT / "config/gatewayd.yaml").read_text().splitlines()
    keyed = [number for number, line in enumerate(lines) if re.match(r"[ -]*[a-z_]+:", line)]
    number = data.draw(st.sampled_from(keyed))
    lines[number] = lines[number].split(":")[0] + ": " + json.dumps(data.draw(TREES), ensure_ascii=False)
    config_or_error("\n".join(lines).encode("utf-8", "replace"))


# The command line, and what is made from the models.


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "gatewayd.yaml"
    path.write_text(text)
    return path


def test_check_config_sums_up_a_good_file(tmp_path: Path) -> None:
    path = written(tmp_path, CHANNEL.replace("/dev/", f"{tmp_path}/"))
    result = CliRunner().invoke(command(), ["check-config", str(path)])
    assert result.exit_code == 0
    assert result.stdout == "ok: 1 channel, spool on SQLite, HTTP on 127.0.0.1:8080\n"
    assert f"{path}:6: warning: channels[0].port: {tmp_path}/ttyUSB0 is not there now\n" in result.stderr


def test_check_config_shows_every_fault_with_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, CHANNEL + "    pacing: {interval: 6}\n    colour: red\n")
    result = CliRunner().invoke(command(), ["check-config", str(path)])
    assert result.exit_code == 2
    assert result.stdout.splitlines() == [
        f"{path}:7: channels[0].pacing.interval: 6 has no unit: write 6s for seconds, or ms, m, h, d",
        f"{path}:8: channels[0].colour: unknown key",
    ]


def test_check_config_of_a_missing_file(tmp_path: Path) -> None:
    result = CliRunner().invoke(command(), ["check-config", str(tmp_path / "none")])
    assert (result.exit_code, result.stdout) == (2, f"{tmp_path}/none: cannot be read: No such file or directory\n")


def test_example_is_fine() -> None:
    assert check(ROOT / "config/gatewayd.yaml") == []


def test_example_shows_every_key_with_its_default(tmp_path: Path) -> None:
    """The example with all its comments taken off is also fine, and names every key there is."""
    text = (ROOT / "config/gatewayd.yaml").read_text()
    assert set(re.findall(r"(?m)^\| `([a-z_]+)` \|", manual())) <= set(re.findall(r"([a-z_]+):", text))
    bare = re.sub(
        r"(?m)^( *)# (?= *(- )?[a-z_]+:( |$))(?!.*(yaml-language-server|postgresql|_file|archive_dir))", r"\1", text
    )
    assert bare != text
    config = load(written(tmp_path, bare))
    default = parse(LEAST).gateway
    assert config.gateway == default.model_copy(update={"home_country": "UY", "timezone": "America/Montevideo"})
    assert len(config.sims) == 1


def test_missing_and_readable_secrets_are_faults(tmp_path: Path) -> None:
    keys, password = tmp_path / "keys", tmp_path / "password"
    text = (
        f'spool:\n  url: "postgresql://g@db/g"\n  password_file: {password}\n'
        f"http:\n  api_keys_file: {keys}\nchannels: []\n"
    )
    path = written(tmp_path, text)
    load(path)  # does not look at them
    found = [(fault.line, fault.path, fault.reason) for fault in check(path)]
    assert found == [
        (3, "spool.password_file", f"{password}: cannot be read: No such file or directory"),
        (5, "http.api_keys_file", f"{keys}: cannot be read: No such file or directory"),
    ]
    keys.write_text("crm sha256=0\n")
    keys.chmod(0o640)
    password.write_text("hunter2\n")
    password.chmod(0o644)
    first, *others = check(path)
    assert (first.line, first.path) == (3, "spool.password_file")
    assert "everybody can read or change it (mode 0644)" in first.reason
    assert {fault.line for fault in others} == {5}
    assert any(f"{keys} line 1: crm: scopes is required" in fault.reason for fault in others)
    keys.write_text("")
    password.chmod(0o600)
    assert check(path) == []
    assert examine(path).config is not None
    password.write_text("\n")
    assert [fault.path for fault in check(path)] == ["spool.password_file"]


def test_two_names_of_one_device(tmp_path: Path) -> None:
    device, link = tmp_path / "tty0", tmp_path / "by-id"
    device.touch()
    link.symlink_to(device)
    channels = "".join(
        f"  - {{name: {name}, type: modem, port: {port}}}\n" for name, port in (("a", device), ("b", link))
    )
    path = written(tmp_path, LEAST.replace("channels: []\n", "channels:\n" + channels))
    assert [(fault.line, fault.path) for fault in check(path)] == [(5, "channels[1].port")]


def test_warnings(tmp_path: Path) -> None:
    path = written(tmp_path, LEAST.replace("{}", "{trusted_networks: [0.0.0.0/0]}"))
    assert [(fault.line, fault.path) for fault in examine(path).warnings] == [
        (2, "http.trusted_networks[0]"),
        (3, "channels"),
    ]
    path = written(tmp_path, CHANNEL + "    enabled: false\n    submit_timeout: 1s\n")
    assert [fault.path for fault in examine(path).warnings] == ["http", "channels[0].submit_timeout"]


# Certificates.


def with_certificate(tmp_path: Path, days: float = 365, *, since_days: float = -1, kind: str = "ECDSA") -> Path:
    """A configuration whose certificate holds from and until so many days from now."""
    now = datetime.now(UTC)
    made = trustme.CA().issue_cert(
        "gateway.example",
        not_before=now + timedelta(days=since_days),
        not_after=now + timedelta(days=days),
        key_type=trustme.KeyType[kind],
    )
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
    key.touch(mode=0o600)
    key.write_bytes(made.private_key_pem.bytes())
    text = f"http:\n  trusted_networks: [127.0.0.1]\n  tls:\n    cert_file: {chain}\n    key_file: {key}\n"
    channel = CHANNEL.replace("/dev/ttyUSB0", "/dev/null")
    return written(tmp_path, channel.replace("http: {}\n", text))


def warned(path: Path) -> list[tuple[int | None, str, str]]:
    found = examine(path)
    assert found.faults == []
    assert found.config is not None
    return [(fault.line, fault.path, fault.reason) for fault in found.warnings]


@pytest.mark.parametrize("kind", ["RSA", "ECDSA"])
def test_a_good_certificate_is_fine(tmp_path: Path, kind: str) -> None:
    assert warned(with_certificate(tmp_path, kind=kind)) == []


@pytest.mark.parametrize(
    ("days", "since_days", "fragment"),
    [
        (-0.5, -1, "the certificate expired at"),
        (3.5, -1, "the certificate expires in 3.5 days, at"),
        (365, 1, "not valid before"),
    ],
)
def test_the_time_of_a_certificate_is_a_warning(tmp_path: Path, days: float, since_days: float, fragment: str) -> None:
    ((line, key, reason),) = warned(with_certificate(tmp_path, days, since_days=since_days))
    assert (line, key) == (5, "http.tls.cert_file")
    assert fragment in reason


def test_tls_makes_insecure_http_needless(tmp_path: Path) -> None:
    path = with_certificate(tmp_path)
    path.write_text(path.read_text().replace("http:\n", "http:\n  insecure_http: true\n"))
    assert [key for _, key, _ in warned(path)] == ["http.insecure_http"]


def certificate_fault(path: Path) -> tuple[str, str]:
    (fault,) = check(path)
    return fault.path, fault.reason


def test_a_certificate_that_cannot_be_used_is_a_fault_that_says_why(tmp_path: Path) -> None:
    path = with_certificate(tmp_path)
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    good = (chain.read_bytes(), key.read_bytes())
    private = serialization.load_pem_private_key(good[1], None)
    passphrase = serialization.BestAvailableEncryption(b"hunter2")
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    encrypted = private.private_bytes(pem, pkcs8, passphrase)
    stranger = trustme.CA().issue_cert("gateway.example", key_type=trustme.KeyType.RSA)
    neighbour = trustme.CA().issue_cert("gateway.example")
    for content, where, fragment in (
        ((good[0], neighbour.private_key_pem.bytes()), "key_file", "is not the key of the first certificate"),
        ((good[0], stranger.private_key_pem.bytes()), "key_file", "is not the key of the first certificate"),
        ((trustme.CA().cert_pem.bytes() + good[0], good[1]), "key_file", "the server's own must come first"),
        ((good[0], encrypted), "key_file", "has a passphrase"),
        ((good[0], good[0]), "key_file", "holds no PEM private key"),
        ((good[0], b""), "key_file", "holds no PEM private key"),
        ((good[1], good[1]), "cert_file", "holds no PEM certificate"),
        ((good[0].replace(b"M", b"!"), good[1]), "cert_file", "cannot be used"),
        ((good[0], good[1].replace(b"M", b"!")), "key_file", "cannot be used"),
    ):
        chain.write_bytes(content[0])
        key.write_bytes(content[1])
        found = certificate_fault(path)
        assert found[0] == f"http.tls.{where}", found
        assert str(key if where == "key_file" else chain) in found[1]
        assert fragment in found[1], found
        assert "hunter2" not in str(found)
    chain.write_bytes(good[0])
    key.write_bytes(good[1])
    assert check(path) == []
    key.chmod(0o644)
    assert "everybody can read or change it (mode 0644)" in certificate_fault(path)[1]
    key.unlink()
    assert certificate_fault(path) == ("http.tls.key_file", f"{key}: cannot be read: No such file or directory")
    key.write_bytes(good[1])
    key.chmod(0o600)
    chain.unlink()
    assert certificate_fault(path) == ("http.tls.cert_file", f"{chain}: cannot be read: No such file or directory")


def test_schema_is_up_to_date() -> None:
    made = CliRunner().invoke(command(), ["config", "schema"]).stdout
    assert made == schema_text()
    stale = "stale: gatewayd config schema > config/gatewayd.schema.json"
    assert (ROOT / "config/gatewayd.schema.json").read_text(encoding="utf-8") == made, stale


def test_schema_knows_keys_units_and_defaults() -> None:
    schema = json.loads(schema_text())
    assert set(schema["properties"]) == set(Config.model_fields)
    assert schema["required"] == ["spool", "http", "channels"]
    assert schema["additionalProperties"] is False
    channel = schema["properties"]["channels"]["items"]
    assert channel["required"] == ["name", "type", "port"]
    assert channel["properties"]["type"]["enum"] == ["modem"]
    assert channel["properties"]["pacing"]["properties"]["interval"]["default"] == "6s"
    assert schema["properties"]["gateway"]["properties"]["in_doubt"]["properties"]["policy"]["enum"] == ["fail", "hold"]


def test_manual_is_up_to_date(tmp_path: Path) -> None:
    made = CliRunner().invoke(command(), ["config", "docs"]).stdout
    path = ROOT / "docs/configuration.md"
    head, marker, rest = path.read_text(encoding="utf-8").partition(MARKER)
    assert head.startswith("# Configuration\n")
    assert marker
    assert rest == "\n" + made, "stale: gatewayd config docs --into docs/configuration.md"
    copy = tmp_path / "configuration.md"
    copy.write_text(f"{head}{MARKER}old\n", encoding="utf-8")
    assert CliRunner().invoke(command(), ["config", "docs", "--into", str(copy)]).exit_code == 0
    assert copy.read_text(encoding="utf-8") == path.read_text(encoding="utf-8")
