"""Imports point one way (DESIGN §2): base ← pure ← modems | spool ← router ← http ← app and the command line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gatewayd"

BASE = {
    "errors",
    "clock",
    "crashpoints",
    "model",
    "config",
    "apikeys",
    "metrics",
    "msglog",
    "logs",
    "logstyles",
    "__init__",
}
PURE = {
    "model",
    "errors",
    "config.dialstring",
    "modems.pdu",
    "modems.at",
    "spool.lifecycle",
    "spool.periods",
    "spool.rhythm",
    "spool.retry",
    "spool.correlate",
    "router.numbers",
    "router.breaker",
    "router.pacing",
    "router.windows",
    "router.guards",
    "router.routes",
    "router.target",
    "router.signature",
    "router.verdicts",
    "router.alerts",
    "router.events",
    "router.explain",
    "router.kannel_dlr",
    "router.optout",
    "router.optout_packs",
    "router.optout_text",
}
MAY_IMPORT = {
    "base": {"base"},
    "modems": {"base", "modems"},
    "spool": {"base", "spool"},
    "router": {"base", "modems", "spool", "router"},
    "http": {"base", "modems", "spool", "router", "http"},
    "app": {"base", "modems", "spool", "router", "http", "app"},
}
PURE_ON_DATA = {"router.explain", "router.events"}
"""Does no I/O, but takes the data classes of modules that do."""
NOT_PURE = {
    "asyncio", "socket", "subprocess", "threading", "time", "logging", "os", "io", "sqlite3", "serial",
    "serial_asyncio", "aiohttp", "sqlalchemy", "psycopg", "random", "secrets",
    "select", "signal", "shutil", "tempfile", "pathlib",
}  # fmt: skip


def _modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__" and len(parts) > 1:
            parts.pop()
        found[".".join(parts)] = path
    return found


MODULES = _modules()


def _imports(path: Path) -> set[str]:
    """What a module imports, in full; imports for type checking only count too, for they are knowledge all the same."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _layer(module: str) -> str:
    head = module.split(".")[0]
    if head in {"modems", "spool", "router", "http"}:
        return head
    return "base" if head in BASE else "app"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    layer = _layer(module)
    for name in _imports(MODULES[module]):
        if not name.startswith("gatewayd."):
            continue
        imported = name.removeprefix("gatewayd.")
        if imported.startswith("__"):
            continue
        assert _layer(imported) in MAY_IMPORT[layer], f"{module} ({layer}) imports {imported}"


@pytest.mark.parametrize(
    "module", [name for name in MODULES if any(name == p or name.startswith(p + ".") for p in PURE)]
)
def test_pure_modules_do_no_io(module: str) -> None:
    imported = {name.split(".")[0] for name in _imports(MODULES[module])}
    assert not imported & NOT_PURE
    if module in PURE_ON_DATA:
        return
    for name in _imports(MODULES[module]):
        if name.startswith("gatewayd."):
            target = name.removeprefix("gatewayd.")
            known = target if target in MODULES else target.rpartition(".")[0]
            assert any(known == p or known.startswith(p + ".") for p in (*PURE, "spool.lifecycle")), (
                f"{module} is pure and imports {target}"
            )


def test_only_the_transport_touches_the_serial_library() -> None:
    users = {
        name
        for name, path in MODULES.items()
        if {"serial", "serial_asyncio"} & {i.split(".")[0] for i in _imports(path)}
    }
    assert users <= {"modems.transport"}


def test_only_the_spool_touches_a_database_driver() -> None:
    drivers = {"sqlite3", "psycopg", "aiosqlite", "sqlalchemy", "alembic"}
    users = {name for name, path in MODULES.items() if drivers & {i.split(".")[0] for i in _imports(path)}}
    assert all(name.startswith("spool.") for name in users), users


def test_every_tests_folder_is_a_package() -> None:
    """Else tests/http would shadow the standard library's http."""
    folders = {path.parent for path in (ROOT / "tests").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)
