"""Alembic's entry: run by `gatewayd.spool.migrate` on the connection it hands over."""

from __future__ import annotations

from alembic import context

from gatewayd.spool.schema import metadata

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
connection.commit()
