"""Routes, turns, sticky senders, quotas, quarantine, operations on the queue, what a message is held for.

Revision ID: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_TEXTS = {
    "lanes": ("zone",),
    "channels": ("mode", "mode_actor", "mode_reason"),
    "messages": ("route", "zone", "held", "wish"),
}


def upgrade() -> None:
    for table, names in _TEXTS.items():
        for name in names:
            op.add_column(table, sa.Column(name, sa.Text(), server_default="", nullable=False))
    op.add_column("channels", sa.Column("mode_at", sa.BigInteger(), nullable=True))
    op.add_column("messages", sa.Column("text_dropped_at", sa.BigInteger(), nullable=True))
    op.add_column("inbound_messages", sa.Column("text_dropped_at", sa.BigInteger(), nullable=True))
    # Of attempts before it says what was to be done (later, elsewhere, never) instead of what was at fault.
    op.execute("ALTER TABLE attempts RENAME COLUMN retry TO failure")
    op.create_table(
        "turns",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("moved_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "dialer_starts",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("intent_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "senders",
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("sim_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sim_usage",
        sa.Column("sim_id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("minute_start", sa.BigInteger(), nullable=False),
        sa.Column("minute_used", sa.Integer(), nullable=False),
        sa.Column("hour_start", sa.BigInteger(), nullable=False),
        sa.Column("hour_used", sa.Integer(), nullable=False),
        sa.Column("day_start", sa.BigInteger(), nullable=False),
        sa.Column("day_used", sa.Integer(), nullable=False),
        sa.Column("month_start", sa.BigInteger(), nullable=False),
        sa.Column("month_used", sa.Integer(), nullable=False),
        sa.Column("recipients", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("sim_id"),
    )
    op.create_table(
        "sim_recipients",
        sa.Column("sim_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("month_start", sa.BigInteger(), nullable=False),
        sa.Column("intents", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("sim_id", "number"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_sim_recipients_month", "sim_recipients", ["month_start"], unique=False)
    op.create_table(
        "number_faults",
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("sims", sa.Text(), nullable=False),
        sa.Column("code", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("first_at", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("probe", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("number"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_number_faults_last", "number_faults", ["last_at"], unique=False)
    op.create_table(
        "recent_texts",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_recent_texts_at", "recent_texts", ["at"], unique=False)
    op.create_table(
        "operations",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("filter", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), server_default="", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("last_id", sa.BigInteger(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("matched", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("changed", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_operations_running",
        "operations",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    )
    op.create_index(
        "ix_segments_doubtful",
        "segments",
        ["message_id"],
        unique=False,
        sqlite_where=sa.text("state IN ('IN_DOUBT', 'ABANDONED')"),
        postgresql_where=sa.text("state IN ('IN_DOUBT', 'ABANDONED')"),
    )
    _index_what_is_open()
    _mark_held()


def _index_what_is_open() -> None:
    """By a predicate for which SQLite does not take the index on (state, id), which finds everything that waits."""
    for name, columns, where in (
        ("ix_messages_open_to", ["to_number"], "state + 0 = 1"),
        ("ix_messages_pinned", ["pin_channel", "id"], "state + 0 = 1 AND pin_channel <> ''"),
    ):
        op.drop_index(name, table_name="messages")
        op.create_index(
            name, "messages", columns, unique=False, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
        )


def _mark_held() -> None:
    """What is held says from now on what for, and stands in the queue as kept back, where its time can pass."""
    held = (
        "queue = 0 AND state = 1 AND EXISTS (SELECT 1 FROM segments s WHERE s.message_id = messages.id "
        "AND s.state = 'HELD') AND NOT EXISTS (SELECT 1 FROM segments s WHERE s.message_id = messages.id "
        "AND s.state IN ('SUBMITTING', 'IN_DOUBT'))"
    )
    op.execute(
        f"UPDATE messages SET queue = 4, held = 'pin' WHERE {held} AND reason LIKE 'held: the configuration has no%'"
    )
