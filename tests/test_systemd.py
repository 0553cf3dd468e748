"""The unit and the files beside it, judged by systemd's own tools."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SYSTEMD = ROOT / "systemd"
UNIT = SYSTEMD / "gatewayd.service"
MOST_EXPOSED = 25
"""systemd-analyze security, in tenths: 2.5 at the most."""


def tool(*command: str | Path, **arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program; its output, and its status."""
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=60, check=False, **arguments
    )  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that this machine has."""
    path = tmp_path / "gatewayd.service"
    path.write_text(UNIT.read_text().replace("/usr/bin/gatewayd", "/usr/bin/true"))
    return path


@pytest.mark.needs("systemd-analyze", "systemd")
def test_the_unit_verifies_without_a_word(unit: Path) -> None:
    done = tool("systemd-analyze", "verify", "--man=no", unit)
    said = [line for line in done.stderr.splitlines() if "gatewayd" in line]  # not of this machine's other units
    assert (done.returncode, said) == (0, [])


@pytest.mark.needs("systemd-analyze", "systemd")
def test_the_unit_is_hardened(unit: Path) -> None:
    done = tool("systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", unit)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "overall exposure level" in done.stdout.lower(), "it was judged"


def test_the_unit_keeps_the_rules_of_the_daemon() -> None:
    """The watchdog's and the stop's figures, and exit status 2, as STYLE and the configuration's defaults have them."""
    values = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",))
    values.optionxform = str  # type: ignore[assignment,method-assign]
    values.read_string(UNIT.read_text())
    service = values["Service"]
    assert {key: service[key] for key in ("Type", "NotifyAccess", "WatchdogSec", "TimeoutStopSec", "Restart")} == {
        "Type": "notify",
        "NotifyAccess": "main",
        "WatchdogSec": "120",
        "TimeoutStopSec": "60",
        "Restart": "on-failure",
    }
    assert service["RestartPreventExitStatus"] == "2"
    assert "time-sync.target" in UNIT.read_text()


@pytest.mark.needs("systemd-sysusers", "systemd")
def test_the_user_is_made(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    done = tool("systemd-sysusers", f"--root={tmp_path}", "--replace=/usr/lib/sysusers.d/gatewayd.conf",
                SYSTEMD / "sysusers.d/gatewayd.conf")  # fmt: skip
    assert done.returncode == 0, done.stderr
    name, _, _, _, _, home, shell = (tmp_path / "etc/passwd").read_text().split(":")
    assert (name, home, shell.strip()) == ("gatewayd", "/var/lib/gatewayd", "/usr/sbin/nologin")
    assert re.search(r"^dialout:.*:gatewayd$", (tmp_path / "etc/group").read_text(), re.MULTILINE)


@pytest.mark.needs("systemd-tmpfiles", "systemd")
@pytest.mark.skipif(os.geteuid() != 0, reason="gives files away: be root")
def test_the_folders_are_made_and_secrets_kept_from_others(tmp_path: Path) -> None:
    (tmp_path / "etc/gatewayd").mkdir(parents=True)
    (tmp_path / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\ngatewayd:x:971:972::/:/bin/false\n")
    (tmp_path / "etc/group").write_text("root:x:0:\ngatewayd:x:972:\n")
    for name in ("gatewayd.yaml", "api-keys"):
        (tmp_path / "etc/gatewayd" / name).touch(0o644)
    done = tool("systemd-tmpfiles", "--create", f"--root={tmp_path}", SYSTEMD / "tmpfiles.d/gatewayd.conf")
    assert done.returncode == 0, done.stderr

    def entry(path: str) -> tuple[int, int, int]:
        status = (tmp_path / path).stat()
        return status.st_mode & 0o7777, status.st_uid, status.st_gid

    assert entry("var/lib/gatewayd") == (0o750, 971, 972)
    assert entry("etc/gatewayd") == (0o750, 0, 972)
    assert entry("etc/gatewayd/gatewayd.yaml") == (0o640, 0, 972)
    assert entry("etc/gatewayd/api-keys") == (0o640, 0, 972)


# --- udev: a USB modem that is not there, in an emulated /sys, judged by udev's own rule engine

DEVICE = "/devices/pci0000:00/0000:00:14.0/usb1/1-1"


def emulated(vendor: str, product: str, interface: int, protocol: str) -> str:
    """One USB modem in umockdev's notation: controller, hub, device, interface, port, tty."""
    lines: list[str] = []

    def add(path: str, *, node: str = "", properties: dict[str, str], **attributes: str) -> None:
        lines.append(f"P: {path}")
        if node:
            lines.append(f"N: {node}")
        lines.extend(f"E: {key}={value}" for key, value in properties.items())
        lines.extend(f"A: {key}={value}" for key, value in attributes.items())
        lines.append("")

    usb = {"SUBSYSTEM": "usb", "DEVTYPE": "usb_device", "DRIVER": "usb"}
    add(DEVICE.rpartition("/usb1")[0], properties={"SUBSYSTEM": "pci", "DRIVER": "xhci_hcd"})
    add(DEVICE.rpartition("/")[0], properties=usb, idVendor="1d6b", idProduct="0002")
    add(DEVICE, properties=usb, idVendor=vendor, idProduct=product, manufacturer="X", product="Y")
    part = f"{DEVICE}/1-1:1.{interface}"
    add(part, properties={"SUBSYSTEM": "usb", "DEVTYPE": "usb_interface", "DRIVER": "option"},
        bInterfaceNumber=f"{interface:02x}", bInterfaceClass="ff", bInterfaceSubClass="00",
        bInterfaceProtocol=protocol)  # fmt: skip
    add(f"{part}/ttyUSB2", properties={"SUBSYSTEM": "usb-serial", "DRIVER": "option1"}, port_number="0")
    add(f"{part}/ttyUSB2/tty/ttyUSB2", node="ttyUSB2", dev="188:2",
        properties={"SUBSYSTEM": "tty", "DEVNAME": "/dev/ttyUSB2", "MAJOR": "188", "MINOR": "2"})  # fmt: skip
    return "\n".join(lines)


IN_A_ROOM_OF_ITS_OWN = r"""
set -eu
rules=$1 local=$2 bed=$3; shift 3
# What udevadm test writes (links in /dev, its database) and where rules are read from is this room's alone.
mkdir -p "$bed.dev"
mount -t tmpfs none "$bed.dev"
for node in null zero full random urandom; do touch "$bed.dev/$node"; mount --bind "/dev/$node" "$bed.dev/$node"; done
mkdir "$bed.dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 none "$bed.dev/pts"
ln -s pts/ptmx "$bed.dev/ptmx"
mount --rbind "$bed.dev" /dev
mount -t tmpfs none /run
mkdir -p /run/udev/rules.d
cp "$rules" /run/udev/rules.d/70-gatewayd.rules
cp "$local" /run/udev/rules.d/69-gatewayd-local.rules
for device; do umockdev-run -d "$bed" -- udevadm test "$device" 2>&1; done
"""


def judged(tmp_path: Path, device: str, *, local: str = "", **modem: str | int) -> tuple[dict[str, str], list[str]]:
    """What udev makes of `device` (a path below the USB device): its properties, and what our file did or got wrong."""
    bed, rules = tmp_path / "modem.umockdev", tmp_path / "local.rules"
    bed.write_text(emulated(**modem))  # type: ignore[arg-type]
    rules.write_text(local)
    done = tool("unshare", "--mount", "sh", "-c", IN_A_ROOM_OF_ITS_OWN, "sh", SYSTEMD / "udev/70-gatewayd.rules",
                rules, bed, f"/sys{DEVICE}{device}")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    properties = dict(re.findall(r"^([A-Z_]+)=(.*)$", done.stdout, re.MULTILINE))
    ours = [line for line in done.stdout.splitlines() if "gatewayd" in line and ".rules:" in line]
    return properties, [line.partition(".rules:")[2].partition(" ")[2] for line in ours]


def port_of(interface: int) -> str:
    return f"/1-1:1.{interface}/ttyUSB2/tty/ttyUSB2"


udev = pytest.mark.usefixtures("_root_for_udev")


@pytest.fixture
def _root_for_udev() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: udev's rules are read from fixed folders, and a room of its own is made for them")


MODEMS = [  # vendor, product, interface, protocol, is the port for AT commands
    ("2c7c", "0125", 2, "00", True),
    ("2c7c", "0125", 3, "00", False),
    ("1e0e", "9001", 2, "00", True),
    ("1e0e", "9011", 2, "00", False),
    ("1e0e", "9011", 4, "00", True),
    ("12d1", "1506", 2, "12", True),
    ("12d1", "1506", 0, "01", False),
    ("1199", "9071", 3, "00", True),
    ("19d2", "0117", 1, "00", False),
    ("1bc7", "1201", 4, "00", False),
]


@udev
@pytest.mark.needs("umockdev-run", "umockdev")
@pytest.mark.needs("udevadm", "udev")
@pytest.mark.parametrize(("vendor", "product", "interface", "protocol", "is_at"), MODEMS)
def test_a_modems_port_gets_its_names_and_group(
    vendor: str, product: str, interface: int, protocol: str, is_at: bool, tmp_path: Path
) -> None:
    modem = {"vendor": vendor, "product": product, "interface": interface, "protocol": protocol}
    properties, did = judged(tmp_path, port_of(interface), **modem)
    slot = f"pci-0000:00:14.0-usb-0:1:1.{interface}"
    links = properties["DEVLINKS"].split()
    assert f"/dev/gatewayd/{slot}" in links
    assert (f"/dev/gatewayd/at-{slot}" in links) is is_at
    assert (properties["ID_MM_DEVICE_IGNORE"], properties["ID_MM_PORT_IGNORE"]) == ("1", "1")
    assert ":gatewayd:" in properties["TAGS"]
    assert {line.split()[0] for line in did} == {"GROUP", "MODE", "LINK"}, "and nothing was complained of"


@udev
@pytest.mark.needs("umockdev-run", "umockdev")
@pytest.mark.needs("udevadm", "udev")
def test_modem_manager_keeps_off_the_device(tmp_path: Path) -> None:
    properties, did = judged(tmp_path, "", vendor="2c7c", product="0125", interface=2, protocol="00")
    assert properties["ID_MM_DEVICE_IGNORE"] == "1"
    assert did == []


@udev
@pytest.mark.needs("umockdev-run", "umockdev")
@pytest.mark.needs("udevadm", "udev")
def test_the_administrator_says_which_modems_are_ours(tmp_path: Path) -> None:
    """The lines that the rules' own comment offers."""
    offered = re.findall(r"^#   ([A-Z].*)$", (SYSTEMD / "udev/70-gatewayd.rules").read_text(), re.MULTILINE)
    keep_off, take, name = offered
    keep_off = keep_off.replace("1-1.4", "1-1")
    name = name.replace("usb-0:1.1:1.2", "usb-0:1:1.2")
    for device in ("", port_of(2)):
        properties, _ = judged(
            tmp_path, device, local=keep_off, vendor="12d1", product="1506", interface=2, protocol="12"
        )
        assert "ID_MM_DEVICE_IGNORE" not in properties
        assert "/dev/gatewayd/" not in properties.get("DEVLINKS", "")
    adapter = {"vendor": "0403", "product": "6001", "interface": 2, "protocol": "ff"}
    properties, _ = judged(tmp_path, port_of(2), **adapter)
    assert "/dev/gatewayd/" not in properties["DEVLINKS"], "an adapter may be anything: not ours unless said"
    properties, did = judged(tmp_path, port_of(2), local=f"{take}\n{name}\n", **adapter)
    assert {"/dev/gatewayd/sim1", "/dev/gatewayd/pci-0000:00:14.0-usb-0:1:1.2"} <= set(properties["DEVLINKS"].split())
    assert {line.split()[0] for line in did} == {"GROUP", "MODE", "LINK"}


@pytest.mark.needs("udevadm", "udev")
def test_the_rules_verify_where_udev_can() -> None:
    """`udevadm verify` came with systemd 254; before that the tests above are what shows the syntax."""
    done = tool("udevadm", "verify", SYSTEMD / "udev/70-gatewayd.rules")
    if "Unknown command" not in done.stderr + done.stdout:
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_names_this_machine() -> None:
    for path in [*SYSTEMD.rglob("*"), *(ROOT / "packaging").rglob("*")]:
        if path.is_file() and path.suffix != ".pyc":
            assert str(ROOT) not in path.read_text(encoding="utf-8"), path


def test_the_tools_are_there_when_everything_is_tested() -> None:
    if os.environ.get("GATEWAYD_TEST_ALL") == "1":
        assert os.geteuid() == 0, "the tests of udev and tmpfiles need root"
        assert shutil.which("unshare")
