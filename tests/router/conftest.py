"""The PostgreSQL of the spool's tests, for those of what stands on it."""

from __future__ import annotations

from tests.spool.conftest import database_url, postgres_server, postgres_url

__all__ = ["database_url", "postgres_server", "postgres_url"]
