"""`gatewayd demo`: the daemon with emulated modems and subscribers, in a temporary folder, nothing to configure.

The real serial code runs over ptys against the simulator in a process of its own.
"""

from __future__ import annotations

import shlex
import shutil
import socket
import sys
import tempfile
from pathlib import Path

import yaml

from gatewayd.app import run_daemon
from gatewayd.commands.control import Target, demo_link
from gatewayd.config import Config, parse
from gatewayd.modems.simulator.process import SimulatorProcess, simulator_process

HOME_COUNTRY = "UY"
NUMBER_BASE = "+5989900"

SUBSCRIBERS = (
    ("098123401", "answers"),
    ("098123402", "sends STOP"),
    ("098123403", "is never reached: the report says expired"),
    ("098123404", "is refused by the network"),
    ("098123405", "fails for good: the report says so"),
    ("098123406", "is silent: no report ever"),
    ("098344484", "gets everything"),
)


async def demo(*, modems: int, port: int, latency_ms: float, interval_s: float, webhook: str = "") -> int:
    """Run until SIGTERM or Ctrl-C; everything is removed at the end. Returns the exit status.

    `webhook`: a URL that is told of every event; "": none.
    """
    with tempfile.TemporaryDirectory(prefix="gatewayd-demo-") as folder:
        directory = Path(folder)
        async with simulator_process(
            modems=modems,
            directory=directory / "modems",
            latency_ms=latency_ms,
            report_delay_ms=1500,
            number_base=NUMBER_BASE,
        ) as simulator:
            config = _config(directory, simulator, modems, _free(port), interval_s, webhook)
            control = config.gateway.control_socket

            def ready(address: str) -> None:
                _point_to(control)
                _welcome(address, modems, control)

            try:
                return await run_daemon(config, on_ready=ready)
            finally:
                link = demo_link()
                if link is not None and link.is_symlink() and link.readlink() == control:
                    link.unlink()


def _config(
    directory: Path, simulator: SimulatorProcess, modems: int, port: int, interval_s: float, webhook: str
) -> Config:
    return parse(
        yaml.safe_dump(
            {
                "gateway": {
                    "instance": "demo",
                    "home_country": HOME_COUNTRY,
                    "control_socket": str(directory / "control.sock"),
                    "logging": {"mask": False},
                },
                "spool": {"url": f"sqlite:///{directory}/spool.db"},
                "http": {"listen": f"127.0.0.1:{port}", "trusted_networks": ["127.0.0.0/8"]},
                "inbound": {"optout": {"name": "Demo", "contact": "099 000 001"}},
                "webhooks": [{"name": "demo", "url": webhook, "allow_private": True}] if webhook else [],
                "channels": [
                    {
                        "name": f"sim{i}",
                        "type": "modem",
                        "port": simulator.port(i),
                        "number": simulator.number(i),
                        "pacing": {"interval": f"{int(interval_s * 1000)}ms"},
                    }
                    for i in range(modems)
                ],
            }
        )
    )


def _free(port: int) -> int:
    """`port` if it is free, else 0: any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


def _point_to(control: Path) -> None:
    """Let the command line find the demo's control socket by a link, unless another demo of this user is using it."""
    link = demo_link(make=True)
    if link is not None and not _answers(link):
        link.unlink(missing_ok=True)
        link.symlink_to(control)


def _answers(control: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(control))
        except OSError:
            return False
    return True


def _program(control: Path) -> str:
    """How to call the command line so that it finds this demo, from the folder it was started in."""
    called = Path(sys.argv[0])
    if called.name == "gatewayd":
        found_by_name = shutil.which("gatewayd")
        program = "gatewayd" if found_by_name and called.samefile(found_by_name) else str(called)
    else:
        here = Path(sys.executable)
        program = f"{here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here} -m gatewayd"
    found = Target().socket_path()
    return program if found.resolve() == control.resolve() else f"GATEWAYD_SOCKET={shlex.quote(str(control))} {program}"


def _welcome(address: str, modems: int, control: Path) -> None:
    program = _program(control)
    print(f"gatewayd demo: {modems} emulated modems, http://{address}, everything in {control.parent}\n")
    print("Send an SMS (in another terminal):\n")
    print(
        f"    curl -d destination=098344484 --data-urlencode 'message=Hello from gatewayd' http://{address}/SendSMS\n"
    )
    print("and see what became of it:\n")
    print(f"    {program} explain 1\n    {program} messages\n    {program} channels\n")
    print("What comes back is in `messages --inbound` and in the stream of events:\n")
    print(f"    {program} messages --inbound\n    curl -N http://{address}/api/v1/events\n")
    print("The emulated subscribers, by the end of their number:\n")
    for number, what in SUBSCRIBERS:
        print(f"    {number}  {what}")
    print("\nCtrl-C ends it.\n", flush=True)
