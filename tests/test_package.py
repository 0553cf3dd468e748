"""The Debian package, built, installed into a scratch Debian, used, booted and removed; and `make install`.

The scratch system comes from where this machine's apt takes its packages, and lives in a temporary folder. Programs
run in it by systemd-nspawn, without a network, and nothing of it outlives the test.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from gatewayd import __version__

ROOT = Path(__file__).parents[1]
SOURCES = ("gatewayd", "systemd", "packaging", "config", "docs", "Makefile", "pyproject.toml", "README.md", "LICENSE",
           "CHANGELOG.md")  # fmt: skip
LIMIT_S = 600

pytestmark = [
    pytest.mark.needs("debootstrap", "debootstrap"),
    pytest.mark.needs("systemd-nspawn", "systemd-container"),
    pytest.mark.needs("dpkg-shlibdeps", "dpkg-dev"),
    pytest.mark.needs("make", "make"),
    pytest.mark.usefixtures("_root_only"),
]


@pytest.fixture(scope="module")
def _root_only() -> None:
    if os.geteuid() != 0:
        assert os.environ.get("GATEWAYD_TEST_ALL") != "1", "a scratch Debian needs root, and GATEWAYD_TEST_ALL=1"
        pytest.skip("needs root: makes a scratch Debian")


def done(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None, status: int = 0) -> str:
    """Run a program that must end with `status`; its output, or what it complained of."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")} | (env or {})
    finished = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=variables, stdin=subprocess.DEVNULL, timeout=LIMIT_S,
        capture_output=True, check=False, text=True, errors="replace",
    )  # fmt: skip
    assert finished.returncode == status, finished.stdout + finished.stderr
    return finished.stdout if status == 0 else finished.stderr


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("package")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def source(room: Path) -> Path:
    """A copy of the tree: what is built from it must neither name it nor change it."""
    copy = room / "source"
    copy.mkdir()
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def package(source: Path) -> Path:
    done("make", "deb", cwd=source)
    (found,) = (source / "dist").glob("*.deb")
    return found


@pytest.fixture(scope="module")
def debian(room: Path) -> Path:
    """A minimal Debian of this machine's release with what the package depends on."""
    release = platform.freedesktop_os_release()["VERSION_CODENAME"]
    mirrors = done("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {release}",
                   "Origin: Debian").split()  # fmt: skip
    assert mirrors, f"apt has no Debian {release} here: run apt-get update"
    root = room / "debian"
    done("debootstrap", "--variant=minbase", "--include=python3,systemd", release, root, mirrors[0])
    return root


@pytest.fixture(scope="module")
def installed(debian: Path, package: Path) -> Path:
    """The scratch Debian with the package installed by apt."""
    shutil.copy2(package, debian / "srv/gatewayd.deb")
    said = inside(debian, "apt-get install -y --no-install-recommends /srv/gatewayd.deb")
    assert "Setting up gatewayd" in said
    return debian


@pytest.fixture
def machine(installed: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of the installed system to change and break."""
    copy = tmp_path / "machine"
    done("cp", "-a", installed, copy)
    yield copy
    shutil.rmtree(copy)


NSPAWN = ("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--private-network", "--console=pipe")


def inside(root: Path, script: str, *, status: int = 0) -> str:
    """Run a shell script as root of the scratch system; what it wrote. All it started ends with it."""
    variables = ("--setenv=DEBIAN_FRONTEND=noninteractive", "--setenv=LC_ALL=C.UTF-8")
    return done(*NSPAWN, *variables, "-D", root, "sh", "-euc", script, status=status)


def test_the_package_says_what_it_needs_and_names_no_folder_of_the_build(
    package: Path, source: Path, tmp_path: Path
) -> None:
    field = {key: done("dpkg-deb", "--field", package, key).strip() for key in ("Package", "Version", "Depends")}
    assert (field["Package"], field["Version"]) == ("gatewayd", __version__)
    minor = done("/usr/bin/python3", "-c", "import sys; print(sys.version_info[1])").strip()
    for dependency in (f"python3 (>= 3.{minor})", f"python3 (<< 3.{int(minor) + 1})", "libc6 (>="):
        assert dependency in field["Depends"]
    done("dpkg-deb", "--raw-extract", package, tmp_path / "files")
    naming = subprocess.run(
        ["grep", "-rlF", f"{source}/", str(tmp_path / "files")], capture_output=True, text=True, check=False
    ).stdout
    assert naming == ""
    scripts = [path for path in (tmp_path / "files/usr/lib/gatewayd/venv/bin").iterdir() if not path.is_symlink()]
    assert {path.read_text().splitlines()[0] for path in scripts} == {"#!/usr/lib/gatewayd/venv/bin/python"}
    listed = done("dpkg-deb", "--contents", package).splitlines()
    assert all(line.split()[1] == "root/root" for line in listed)
    assert not [
        line for line in listed if "/site-packages/pip/" in line or re.match(r"-..s|-.....s|.......w|....w", line)
    ]
    shutil.rmtree(tmp_path / "files")


def test_it_is_installed_and_answers(installed: Path) -> None:
    assert inside(installed, "gatewayd --version").strip() == f"gatewayd {__version__}"
    assert "ok: " in inside(installed, "gatewayd check-config")
    owners = inside(installed, "stat -c '%n %a %U:%G' /etc/gatewayd /etc/gatewayd/gatewayd.yaml /var/lib/gatewayd")
    assert owners.splitlines() == [
        "/etc/gatewayd 750 root:gatewayd",
        "/etc/gatewayd/gatewayd.yaml 640 root:gatewayd",
        "/var/lib/gatewayd 750 gatewayd:gatewayd",
    ]
    assert inside(installed, "id -nG gatewayd").split() == ["gatewayd", "dialout"]
    assert inside(installed, "systemctl is-enabled gatewayd").strip() == "enabled"
    assert (installed / "usr/share/doc/gatewayd/copyright").read_text().count("aiohttp ") == 1


def test_nothing_is_compiled_at_run_time(installed: Path) -> None:
    """What root's first call wrote there, no removal would find."""
    before = sorted((installed / "usr/lib/gatewayd").rglob("*"))
    inside(installed, "gatewayd --version; gatewayd check-config; gatewayd pdu encode +59898344484 hello")
    assert sorted((installed / "usr/lib/gatewayd").rglob("*")) == before


DEMO = r"""
gatewayd demo > /srv/demo.log 2>&1 &
demo=$!
# The installed configuration would lead the command line to the service.
for i in $(seq 600); do
  if grep -q 'Ctrl-C ends it' /srv/demo.log; then break; fi
  kill -0 $demo || { cat /srv/demo.log; exit 9; }
  sleep 0.1
done
export GATEWAYD_SOCKET=/tmp/gatewayd-demo-0/control.sock
gatewayd send 098344484 'from a package' >&2
for i in $(seq 600); do
  gatewayd explain 1 > /srv/explained
  if grep -q 'Delivered at' /srv/explained; then break; fi
  sleep 0.1
done
cat /srv/explained
kill $demo
wait $demo
"""


def test_the_demo_sends_a_message_in_it(installed: Path) -> None:
    said = inside(installed, DEMO)
    assert "delivery delivered" in said
    assert re.search(r"1 to \+59898344484: Delivered at", said)


def test_an_upgrade_keeps_the_configuration_and_removal_keeps_what_is_the_users(machine: Path) -> None:
    config, spool = machine / "etc/gatewayd/gatewayd.yaml", machine / "var/lib/gatewayd/spool.db"
    config.write_text(config.read_text() + "# mine\n")
    spool.touch()
    inside(machine, "dpkg -i /srv/gatewayd.deb")
    assert config.read_text().endswith("# mine\n")
    assert config.stat().st_mode & 0o7777 == 0o640
    said = inside(machine, "dpkg --remove gatewayd")
    assert "/var/lib/gatewayd (the spool) are kept" in said
    assert config.read_text().endswith("# mine\n")
    assert spool.exists()
    assert not (machine / "usr/bin/gatewayd").is_symlink()
    assert not (machine / "usr/lib/gatewayd").exists()
    assert not (machine / "lib/systemd/system/gatewayd.service").exists()
    inside(machine, "dpkg --purge gatewayd")
    assert not (machine / "etc/gatewayd").exists()
    assert not (machine / "var/lib/gatewayd").exists()
    assert not list((machine / "etc/systemd/system").rglob("gatewayd.service"))


# --- under a real systemd, as process 1 of a container with the unit's device policy in force

BOOTED = r"""#!/bin/sh
# Runs once the system is up; writes what it finds to /srv/found, one JSON object; its end switches the machine off.
exec > /srv/booted.log 2>&1
set -x
wait_for() { for i in $(seq 600); do if "$@"; then return 0; fi; sleep 0.1; done; return 1; }
show() { systemctl show gatewayd --value -p "$1"; }
install -d -o gatewayd /run/sim
runuser -u gatewayd -- gatewayd simulate --modems 1 --dir /run/sim &
wait_for test -e /run/sim/modem0
gatewayd apikey new app --file /etc/gatewayd/api-keys
systemctl daemon-reload
systemctl restart gatewayd; started=$?
active=$(systemctl is-active gatewayd); status=$(show StatusText)
gatewayd send 098344484 'under systemd'
delivered() { gatewayd explain 1 | grep -q 'Delivered at'; }
wait_for delivered; delivered=$?
pid=$(show MainPID)
capabilities=$(sed -n 's/^CapEff:\t//p' /proc/$pid/status)
gatewayd pause --all
sleep 7  # more than two watchdog periods without anything to do
idle_pid=$(show MainPID)
systemctl reload gatewayd; reloaded=$?
systemctl start devices
kill -STOP $pid  # its loop turns no more
again() { [ "$(show NRestarts)" = 1 ] && [ "$(systemctl is-active gatewayd)" = active ]; }
wait_for again; killed=$?
why=$(journalctl -u gatewayd --no-pager -o cat | grep -c "Failed with result 'watchdog'")
systemctl stop gatewayd; result=$(show Result)
cat > /srv/found <<END
{"started": $started, "active": "$active", "status": "$status", "delivered": $delivered, "idle": $((idle_pid - pid)),
 "capabilities": "$capabilities", "reloaded": $reloaded, "killed": $killed, "watchdog": $why, "result": "$result"}
END
sync
"""
BOOTED_UNIT = """\
[Unit]
After=multi-user.target
SuccessAction=poweroff
FailureAction=poweroff

[Service]
ExecStart=/srv/booted
RuntimeMaxSec=300
"""
CONFIG = """\
gateway: {home_country: UY}
spool: {url: "sqlite:////var/lib/gatewayd/spool.db"}
http: {listen: "127.0.0.1:8080", api_keys_file: /run/credentials/gatewayd.service/api-keys}
channels:
  - {name: m0, type: modem, port: /run/sim/modem0, pacing: {interval: 0s}}
"""
DROP_IN = """\
[Service]
WatchdogSec=3
TimeoutAbortSec=2
LoadCredential=api-keys:/etc/gatewayd/api-keys
"""
DEVICES = r"""
import errno, json, os
found = {}
for name in ("ttyUSB0", "ttyACM0", "ttyS3", "other", "ptmx"):
    try:
        os.close(os.open(f"/dev/{name}", os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY))
        found[name] = "opened"
    except OSError as error:
        found[name] = errno.errorcode[error.errno]
print("DEVICES", json.dumps(found), flush=True)
"""
NODES = {"ttyUSB0": (188, 0), "ttyACM0": (166, 0), "ttyS3": (4, 67), "other": (10, 237)}
"""Device nodes without hardware: opening one fails with ENXIO or EIO if the unit lets it, EPERM if not."""


def _prepare(machine: Path) -> None:
    (machine / "etc/gatewayd/gatewayd.yaml").write_text(CONFIG)
    units = machine / "etc/systemd/system"
    (units / "gatewayd.service.d").mkdir(parents=True)
    (units / "gatewayd.service.d/test.conf").write_text(DROP_IN)
    (machine / "srv/booted").write_text(BOOTED)
    (machine / "srv/booted").chmod(0o755)
    (units / "booted.service").write_text(BOOTED_UNIT)
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants/booted.service").symlink_to("/etc/systemd/system/booted.service")
    # The unit as it is, but for the program: what its sandbox lets through.
    unit = (machine / "lib/systemd/system/gatewayd.service").read_text()
    (machine / "usr/local/bin/devices.py").write_text(DEVICES)
    unit = re.sub(r"^ExecStart=.*", "ExecStart=/usr/bin/python3 /usr/local/bin/devices.py", unit, flags=re.MULTILINE)
    unit = re.sub(r"^(Type|Restart|WatchdogSec|RuntimeDirectory|ExecReload)=.*\n", "", unit, flags=re.MULTILINE)
    (units / "devices.service").write_text(unit.replace("[Service]", "[Service]\nType=oneshot", 1))


def test_it_runs_under_systemd(machine: Path, tmp_path: Path) -> None:
    """Started when ready, sends through a port, waits unharmed, reloads, is killed when it hangs, stops cleanly."""
    _prepare(machine)
    binds = []
    dialout = int(inside(machine, "getent group dialout").split(":")[2])
    for name, (major, minor) in NODES.items():
        os.mknod(tmp_path / name, 0o020660, os.makedev(major, minor))
        os.chown(tmp_path / name, 0, dialout)
        (tmp_path / name).chmod(0o660)  # the umask took the group's right
        binds.append(f"--bind={tmp_path / name}:/dev/{name}")
    console = done(
        *NSPAWN, "-D", machine, *binds,
        # With these, process 1 in there may set the device policy, which it does by a BPF program.
        "--system-call-filter=bpf", "--capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN", "--boot",
        env={"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
    )  # fmt: skip
    log = (machine / "srv/booted.log").read_text() if (machine / "srv/booted.log").exists() else console
    assert (machine / "srv/found").exists(), log
    journal = done("journalctl", f"--directory={machine}/var/log/journal", "--no-pager", "-o", "cat", "-u", "gatewayd",
                   "-u", "devices")  # fmt: skip
    found = json.loads((machine / "srv/found").read_text())
    assert found.pop("status").startswith("HTTP on 127.0.0.1:8080"), log + journal
    assert found == {
        "started": 0,
        "active": "active",
        "delivered": 0,
        "idle": 0,
        "capabilities": "0000000000000000",
        "reloaded": 0,
        "killed": 0,
        "watchdog": 1,
        "result": "success",
    }, log + journal
    (devices,) = [json.loads(line.partition(" ")[2]) for line in journal.splitlines() if line.startswith("DEVICES")]
    assert devices.pop("ptmx") == "opened"
    assert devices.pop("other") == "EPERM", "only serial ports"
    assert devices.keys() == {"ttyUSB0", "ttyACM0", "ttyS3"}
    assert set(devices.values()) <= {"ENXIO", "ENODEV", "EIO", "opened"}, "let through, to hardware that is not there"


# --- make install


def test_make_install_respects_destdir_and_configuration_and_uninstall_keeps_what_is_the_users(
    source: Path, tmp_path: Path
) -> None:
    dest = tmp_path / "dest"
    config = dest / "etc/gatewayd/gatewayd.yaml"
    said = done("make", "install", f"DESTDIR={dest}", cwd=source)
    assert "systemctl enable --now gatewayd" in said, "it says what is next"
    assert (dest / "opt/gatewayd/bin/gatewayd").read_text().startswith("#!/opt/gatewayd/bin/python\n")
    assert done(dest / "opt/gatewayd/bin/python", "-m", "gatewayd", "--version").strip() == f"gatewayd {__version__}"
    assert (dest / "usr/local/bin/gatewayd").readlink() == Path("/opt/gatewayd/bin/gatewayd")
    unit = (dest / "usr/local/lib/systemd/system/gatewayd.service").read_text()
    assert "ExecStart=/opt/gatewayd/bin/gatewayd run" in unit
    assert config.stat().st_mode & 0o7777 == 0o640
    (dest / "var/lib/gatewayd").mkdir(parents=True)
    (dest / "var/lib/gatewayd/spool.db").touch()
    config.write_text("# mine\n")
    assert "stays as it is" in done("make", "install", f"DESTDIR={dest}", cwd=source)
    assert config.read_text() == "# mine\n"
    assert "Kept: /etc/gatewayd, /var/lib/gatewayd" in done("make", "uninstall", f"DESTDIR={dest}", cwd=source)
    left = sorted(str(path.relative_to(dest)) for path in dest.rglob("*") if not path.is_dir())
    assert left == ["etc/gatewayd/gatewayd.yaml", "var/lib/gatewayd/spool.db"]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["PREFIX=/etc"], "PREFIX=/etc holds other things than gatewayd"),
        (["PREFIX=opt/gatewayd"], "an absolute path is expected"),
        (["INSTALL_PYTHON=/home/somebody/bin/python3"], "is in somebody's home"),
        (["INSTALL_PYTHON=/usr/bin/python1"], "needs Python 3.11 or newer"),
    ],
)
def test_make_install_refuses_what_would_end_badly(
    arguments: list[str], why: str, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/fstab").touch()
    assert why in done("make", "install", f"DESTDIR={tmp_path}", *arguments, cwd=source, status=2)
    assert (tmp_path / "etc/fstab").exists()
