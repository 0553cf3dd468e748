"""The schema of the first release.

Revision ID: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "attempts",
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.SmallInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("sim_id", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("owner_epoch", sa.Integer(), nullable=False),
        sa.Column("intent_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("retry", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), server_default="", nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.Column("tp_mr", sa.SmallInteger(), nullable=True),
        sa.PrimaryKeyConstraint("message_id", "seq", "number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "channels",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sim_id", sa.BigInteger(), nullable=True),
        sa.Column("paired_at", sa.BigInteger(), nullable=True),
        sa.Column("seen_sim_id", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "counters",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "events",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.SmallInteger(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("actor", sa.Text(), server_default="", nullable=False),
        sa.Column("detail", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_events_message", "events", ["message_id"], unique=False)
    op.create_table(
        "idempotency",
        sa.Column("api_key", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("api_key", "key"),
    )
    op.create_index("ix_idempotency_created", "idempotency", ["created_at"], unique=False)
    op.create_table(
        "inbound_parts",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("sim_id", sa.BigInteger(), nullable=False),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("listing", sa.Text(), nullable=False),
        sa.Column("storage", sa.Text(), nullable=False),
        sa.Column("storage_index", sa.Integer(), nullable=True),
        sa.Column("duplicate_of", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("originator", sa.Text(), server_default="", nullable=False),
        sa.Column("originator_ton", sa.SmallInteger(), nullable=True),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("pid", sa.SmallInteger(), nullable=True),
        sa.Column("dcs", sa.SmallInteger(), nullable=True),
        sa.Column("concat_ref", sa.Integer(), nullable=True),
        sa.Column("concat_bits", sa.SmallInteger(), nullable=True),
        sa.Column("concat_total", sa.SmallInteger(), nullable=True),
        sa.Column("concat_seq", sa.SmallInteger(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("user_data", sa.LargeBinary(), nullable=True),
        sa.Column("message_id", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_inbound_parts_digest", "inbound_parts", ["sim_id", "digest"], unique=False)
    op.create_table(
        "instances",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("stopped_at", sa.BigInteger(), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "lanes",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("sim_id", sa.BigInteger(), nullable=False),
        sa.Column("avoid_sim_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_table(
        "messages",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("lane_id", sa.BigInteger(), nullable=False),
        sa.Column("queue", sa.SmallInteger(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("waits_for", sa.BigInteger(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("owner_epoch", sa.Integer(), nullable=True),
        sa.Column("admission", sa.Text(), nullable=False),
        sa.Column("state", sa.SmallInteger(), nullable=False),
        sa.Column("delivery", sa.Text(), nullable=False),
        sa.Column("class", sa.Text(), nullable=False),
        sa.Column("to_given", sa.Text(), nullable=False),
        sa.Column("to_number", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("alphabet", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), server_default="tpdu", nullable=False),
        sa.Column("segments", sa.SmallInteger(), nullable=False),
        sa.Column("concat_ref", sa.Integer(), nullable=False),
        sa.Column("report", sa.SmallInteger(), nullable=False),
        sa.Column("in_doubt", sa.Text(), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.Column("sim_id", sa.BigInteger(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("avoid_sim_id", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("touched", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("busy", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("pin_channel", sa.Text(), server_default="", nullable=False),
        sa.Column("campaign", sa.Text(), server_default="", nullable=False),
        sa.Column("agent", sa.Text(), server_default="", nullable=False),
        sa.Column("client_ref", sa.Text(), nullable=True),
        sa.Column("callback_url", sa.Text(), nullable=True),
        sa.Column("api_key", sa.Text(), server_default="", nullable=False),
        sa.Column("reason", sa.Text(), server_default="", nullable=False),
        sa.Column("accepted_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_messages_behind",
        "messages",
        ["waits_for"],
        unique=False,
        sqlite_where=sa.text("queue = 3"),
        postgresql_where=sa.text("queue = 3"),
    )
    op.create_index(
        "ix_messages_busy",
        "messages",
        ["to_number"],
        unique=False,
        sqlite_where=sa.text("busy = 1"),
        postgresql_where=sa.text("busy = 1"),
    )
    op.create_index(
        "ix_messages_client_ref",
        "messages",
        ["client_ref"],
        unique=False,
        sqlite_where=sa.text("client_ref IS NOT NULL"),
        postgresql_where=sa.text("client_ref IS NOT NULL"),
    )
    op.create_index(
        "ix_messages_expires",
        "messages",
        ["expires_at"],
        unique=False,
        sqlite_where=sa.text("expires_at IS NOT NULL AND queue > 0"),
        postgresql_where=sa.text("expires_at IS NOT NULL AND queue > 0"),
    )
    op.create_index(
        "ix_messages_put_off",
        "messages",
        ["due_at"],
        unique=False,
        sqlite_where=sa.text("queue IN (1, 3)"),
        postgresql_where=sa.text("queue IN (1, 3)"),
    )
    op.create_index("ix_messages_state", "messages", ["state", "id"], unique=False)
    op.create_table(
        "segments",
        sa.Column("message_id", sa.BigInteger(), nullable=False),
        sa.Column("seq", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("parts", sa.SmallInteger(), server_default="1", nullable=False),
        sa.Column("parts_ok", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("tries", sa.SmallInteger(), server_default="0", nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("sim_id", sa.BigInteger(), nullable=True),
        sa.Column("channel", sa.Text(), nullable=True),
        sa.Column("tp_mr", sa.SmallInteger(), nullable=True),
        sa.Column("tp_mr_expected", sa.SmallInteger(), nullable=True),
        sa.Column("submitted_at", sa.BigInteger(), nullable=True),
        sa.Column("deadline_at", sa.BigInteger(), nullable=True),
        sa.Column("tp_status", sa.SmallInteger(), nullable=True),
        sa.Column("reported_at", sa.BigInteger(), nullable=True),
        sa.Column("code", sa.Text(), server_default="", nullable=False),
        sa.PrimaryKeyConstraint("message_id", "seq"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_segments_deadline",
        "segments",
        ["deadline_at"],
        unique=False,
        sqlite_where=sa.text("deadline_at IS NOT NULL"),
        postgresql_where=sa.text("deadline_at IS NOT NULL"),
    )
    op.create_index(
        "ix_segments_mr",
        "segments",
        ["sim_id", "tp_mr", "submitted_at"],
        unique=False,
        sqlite_where=sa.text("tp_mr IS NOT NULL"),
        postgresql_where=sa.text("tp_mr IS NOT NULL"),
    )
    op.create_index(
        "ix_segments_no_mr",
        "segments",
        ["sim_id", "submitted_at"],
        unique=False,
        sqlite_where=sa.text("tp_mr IS NULL AND submitted_at IS NOT NULL"),
        postgresql_where=sa.text("tp_mr IS NULL AND submitted_at IS NOT NULL"),
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "sims",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("iccid", sa.Text(), nullable=True),
        sa.Column("imsi", sa.Text(), nullable=True),
        sa.Column("number", sa.Text(), server_default="", nullable=False),
        sa.Column("first_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("owner_epoch", sa.Integer(), nullable=True),
        sa.Column("last_tp_mr", sa.Integer(), nullable=True),
        sa.Column("last_submit_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("iccid"),
        sa.UniqueConstraint("imsi"),
    )
    op.create_table(
        "status_reports",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("sim_id", sa.BigInteger(), nullable=False),
        sa.Column("tp_mr", sa.SmallInteger(), nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("tp_status", sa.SmallInteger(), nullable=False),
        sa.Column("discharged_at", sa.BigInteger(), nullable=True),
        sa.Column("raw", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("listing", sa.Text(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=True),
        sa.Column("seq", sa.SmallInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_status_reports_digest", "status_reports", ["sim_id", "digest"], unique=False)
    op.create_index("ix_status_reports_message", "status_reports", ["message_id"], unique=False)
    op.create_index(
        "ix_status_reports_waiting",
        "status_reports",
        ["sim_id", "received_at"],
        unique=False,
        sqlite_where=sa.text("message_id IS NULL"),
        postgresql_where=sa.text("message_id IS NULL"),
    )
    queue_due = sa.text("queue = 2")
    op.create_index(
        "ix_messages_claim",
        "messages",
        ["lane_id", sa.literal_column("priority DESC"), "position"],
        sqlite_where=queue_due,
        postgresql_where=queue_due,
    )
    op.execute("INSERT INTO counters (name, value) VALUES ('message', 0)")
