"""What comes in as messages, opt-outs, events for applications, what keys have used.

Revision ID: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("outbox_id", sa.BigInteger(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), server_default="", nullable=False),
        sa.Column("format", sa.Text(), server_default="", nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("error", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_deliveries_finished", "deliveries", ["state", "finished_at"], unique=False)
    op.create_index("ix_deliveries_outbox", "deliveries", ["outbox_id"], unique=False)
    op.create_index(
        "ix_deliveries_pending",
        "deliveries",
        ["endpoint", "id"],
        unique=False,
        sqlite_where=sa.text("state = 0"),
        postgresql_where=sa.text("state = 0"),
    )
    op.create_table(
        "inbound_assemblies",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("sim_id", sa.BigInteger(), nullable=False),
        sa.Column("originator", sa.Text(), nullable=False),
        sa.Column("concat_ref", sa.Integer(), nullable=False),
        sa.Column("concat_bits", sa.SmallInteger(), nullable=False),
        sa.Column("concat_total", sa.SmallInteger(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("deadline_at", sa.BigInteger(), nullable=True),
        sa.Column("message_id", sa.BigInteger(), nullable=True),
        sa.Column("continues", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_inbound_assemblies_deadline",
        "inbound_assemblies",
        ["deadline_at"],
        unique=False,
        sqlite_where=sa.text("deadline_at IS NOT NULL"),
        postgresql_where=sa.text("deadline_at IS NOT NULL"),
    )
    op.create_index(
        "ix_inbound_assemblies_key", "inbound_assemblies", ["sim_id", "originator", "concat_ref"], unique=False
    )
    op.create_index("ix_inbound_assemblies_opened", "inbound_assemblies", ["opened_at"], unique=False)
    op.create_index("ix_inbound_assemblies_message", "inbound_assemblies", ["message_id"], unique=False)
    op.create_table(
        "inbound_messages",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("sim_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("originator", sa.Text(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.Column("pid", sa.SmallInteger(), nullable=True),
        sa.Column("dcs", sa.SmallInteger(), nullable=True),
        sa.Column("parts", sa.SmallInteger(), nullable=False),
        sa.Column("parts_total", sa.SmallInteger(), nullable=False),
        sa.Column("continues", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("intent", sa.Text(), server_default="", nullable=False),
        sa.Column("tier", sa.Text(), server_default="", nullable=False),
        sa.Column("rule", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_inbound_messages_number", "inbound_messages", ["number", "id"], unique=False)
    op.create_table(
        "key_usage",
        sa.Column("api_key", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("segments", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("api_key", "period"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "optout_events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("number_received", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("intent", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("prior_state", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("tier", sa.Text(), server_default="", nullable=False),
        sa.Column("rule", sa.Text(), server_default="", nullable=False),
        sa.Column("language", sa.Text(), server_default="", nullable=False),
        sa.Column("version", sa.Text(), server_default="", nullable=False),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("inbound_id", sa.BigInteger(), nullable=True),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("confirmation_id", sa.BigInteger(), nullable=True),
        sa.Column("blocked", sa.Integer(), server_default="0", nullable=False),
        sa.Column("in_hand", sa.Integer(), server_default="0", nullable=False),
        sa.Column("evidence", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_optout_events_inbound", "optout_events", ["inbound_id"], unique=False)
    op.create_index("ix_optout_events_number", "optout_events", ["number", "id"], unique=False)
    op.create_table(
        "optouts",
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("wrote_since", sa.SmallInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("number", "scope"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_optouts_since", "optouts", ["state", "since"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=True),
        sa.Column("inbound_id", sa.BigInteger(), nullable=True),
        sa.Column("optout_event_id", sa.BigInteger(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_messages_pinned",
        "messages",
        ["pin_channel", "id"],
        unique=False,
        sqlite_where=sa.text("state = 1 AND pin_channel <> ''"),
        postgresql_where=sa.text("state = 1 AND pin_channel <> ''"),
    )
    op.add_column("inbound_parts", sa.Column("assembly_id", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_inbound_parts_assembly",
        "inbound_parts",
        ["assembly_id"],
        unique=False,
        sqlite_where=sa.text("assembly_id IS NOT NULL"),
        postgresql_where=sa.text("assembly_id IS NOT NULL"),
    )
    op.create_index("ix_inbound_parts_message", "inbound_parts", ["message_id"], unique=False)
    op.add_column("messages", sa.Column("callback_format", sa.Text(), server_default="", nullable=False))
    op.add_column("messages", sa.Column("optout_checked_at", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_messages_open_to",
        "messages",
        ["to_number"],
        unique=False,
        sqlite_where=sa.text("state = 1"),
        postgresql_where=sa.text("state = 1"),
    )
    op.execute("INSERT INTO counters (name, value) VALUES ('outbox', 0), ('inbound', 0)")
    _take_over_parts()


def _take_over_parts() -> None:
    """What was received by 0001 and handed to nobody: the first upkeep finds it overdue, and hands it over."""
    waiting = "message_id IS NULL AND duplicate_of IS NULL"
    columns = "sim_id, originator, concat_ref, concat_bits, concat_total"
    # References come round: the n-th part with a number is of the n-th message. `continues` holds n meanwhile.
    numbered = (
        f"(SELECT id, received_at, {columns}, "
        f"ROW_NUMBER() OVER (PARTITION BY {columns}, concat_seq ORDER BY id) AS nth "
        f"FROM inbound_parts WHERE {waiting} AND concat_total IS NOT NULL) n"
    )
    same = " AND ".join(f"a.{column} = n.{column}" for column in columns.split(", "))
    op.execute(
        f"INSERT INTO inbound_assemblies ({columns}, continues, opened_at, deadline_at) "
        f"SELECT {columns}, nth, MIN(received_at), 0 FROM {numbered} GROUP BY {columns}, nth ORDER BY MIN(id)"
    )
    op.execute(
        "UPDATE inbound_parts SET assembly_id = x.assembly_id FROM (SELECT n.id, a.id AS assembly_id "
        f"FROM {numbered} JOIN inbound_assemblies a ON {same} AND a.continues = n.nth) x WHERE inbound_parts.id = x.id"
    )
    op.execute("UPDATE inbound_assemblies SET continues = NULL")
    op.execute(  # a text of one part: an assembly of its own, by a reference nobody else can have
        f"INSERT INTO inbound_assemblies ({columns}, opened_at, deadline_at) "
        f"SELECT sim_id, originator, -id, 0, 1, received_at, 0 FROM inbound_parts "
        f"WHERE {waiting} AND concat_total IS NULL ORDER BY id"
    )
    op.execute(
        "UPDATE inbound_parts SET assembly_id = (SELECT a.id FROM inbound_assemblies a WHERE a.concat_bits = 0 "
        "AND a.sim_id = inbound_parts.sim_id AND a.originator = inbound_parts.originator "
        "AND a.concat_ref = -inbound_parts.id) "
        f"WHERE {waiting} AND concat_total IS NULL"
    )
