"""What every test shares: async tests, and what is said about tests that need something the machine does not have."""

from __future__ import annotations

import asyncio
import inspect
import os
import shutil

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
