"""What every test shares: async tests, and what is said about tests that need something the machine does not have."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ASYNC_TEST_LIMIT_S = 120  # no test waits for ever

_not_run: dict[str, str] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests in an event loop of their own, in asyncio's debug mode."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def limited() -> None:
        asyncio.get_running_loop().slow_callback_duration = float("inf")  # or a slow machine logs warnings of its own
        async with asyncio.timeout(ASYNC_TEST_LIMIT_S):
            await pyfuncitem.obj(**arguments)

    asyncio.run(limited(), debug=True)
    return True


# The files that take longest, which therefore begin first: with several workers each has files of its own.
_SLOW = ("test_package.py", "test_kills.py", "test_faults_spool.py", "test_restore_end_to_end.py", "test_postgresql.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _SLOW.index(item.path.name) if item.path.name in _SLOW else len(_SLOW))


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder with a short name: a Unix socket's path has 107 octets at most, which pytest's own may use up."""
    with tempfile.TemporaryDirectory(prefix="gw-") as folder:
        yield Path(folder)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.needs(what, package)`: skip and say so where `what` is missing; fail under GATEWAYD_TEST_ALL=1."""
    for mark in item.iter_markers("needs"):
        what, package = mark.args
        if shutil.which(what, path=os.environ.get("PATH", "") + _EXTRA_PATH) is not None:
            continue
        if os.environ.get("GATEWAYD_TEST_ALL") == "1":
            pytest.fail(f"needs {what} (Debian package {package}), and GATEWAYD_TEST_ALL=1", pytrace=False)
        _not_run[item.nodeid] = f"{what} (Debian package {package})"
        pytest.skip(f"needs {what}")


_EXTRA_PATH = ":/usr/sbin:/sbin:" + ":".join(f"/usr/lib/postgresql/{version}/bin" for version in range(20, 12, -1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for test, need in _not_run.items():
        terminalreporter.write_line(f"not run here: {test} needs {need}")
