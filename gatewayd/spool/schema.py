"""The tables of the spool, for SQLite and PostgreSQL alike. See docs/architecture.md "The spool".

Times are UTC epoch milliseconds. Flags are small integers (0, 1), so that the writer's bare statements need no type
conversion on either engine. Hot states are kept as text: a sysadmin with `sqlite3` at night can read them.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    literal_column,
    text,
)

metadata = MetaData()


def sqltext(value: int | str) -> ColumnElement[Any]:
    """A constant written into the statement itself, where a partial index must see it. Never for what comes from
    outside.
    """
    return literal_column(str(value) if isinstance(value, int) else f"'{value}'")


Id = BigInteger().with_variant(Integer, "sqlite")  # SQLite makes only INTEGER PRIMARY KEY the rowid
Ms = BigInteger

# Values of messages.queue.
OUT, LATER, DUE, BEHIND, KEPT = 0, 1, 2, 3, 4
"""OUT: nothing to claim (in hand, finished, in doubt, or set aside) · LATER: until due_at · DUE: claimable · BEHIND:
after another message to the same number (`waits_for`), until due_at at the latest · KEPT: held, till released."""

PUT_OFF = text(f"queue IN ({LATER}, {BEHIND})")
"""What becomes due by itself; in the statements as in the index that serves them."""

OPEN = text("state + 0 = 1")
"""Messages of which something may still be sent (TO PROCESS), in the statements as in the indexes that serve them. The
sum keeps SQLite from taking ix_messages_state for them, which would read every message that waits."""

PINNED = text("state + 0 = 1 AND pin_channel <> ''")

DOUBTFUL = text("state IN ('IN_DOUBT', 'ABANDONED')")
"""Segments of which nobody knows whether they were sent."""

settings = Table(
    "settings",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

instances = Table(
    "instances",
    metadata,
    Column("id", Text, primary_key=True),
    Column("epoch", Integer, nullable=False),  # one more at each start
    Column("started_at", Ms, nullable=False),
    Column("stopped_at", Ms),  # NULL after a crash
    Column("pid", Integer, nullable=False),
    Column("version", Text, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Ms, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("detail", Text, nullable=False, server_default=""),
)

lanes = Table(
    "lanes",
    metadata,
    Column("id", Id, primary_key=True),
    Column("key", Text, nullable=False, unique=True),  # the five below, joined
    Column("source", Text, nullable=False),  # dialer:NAME, or class:CLASS for what the API takes
    Column("target", Text, nullable=False),  # route target; "any": every channel
    Column("channel", Text, nullable=False),  # pinned by the submitter; "": not pinned
    Column("sim_id", BigInteger, nullable=False),  # bound by the first intent; 0: not bound
    Column("avoid_sim_id", BigInteger, nullable=False),  # refused it already; -N: N has no room for new recipients
    Column("zone", Text, nullable=False, server_default=""),  # of the recipients, for windows of theirs; "": no matter
)

sims = Table(
    "sims",
    metadata,
    Column("id", Id, primary_key=True),
    Column("iccid", Text, unique=True),
    Column("imsi", Text, unique=True),
    Column("number", Text, nullable=False, server_default=""),
    Column("first_seen_at", Ms, nullable=False),
    Column("last_seen_at", Ms, nullable=False),
    Column("owner", Text),
    Column("owner_epoch", Integer),
    Column("last_tp_mr", Integer),  # of the last receipt: the next is expected one higher
    Column("last_submit_at", Ms),
)

channels = Table(
    "channels",
    metadata,
    Column("name", Text, primary_key=True),
    Column("sim_id", BigInteger),  # paired at first sight
    Column("paired_at", Ms),
    Column("seen_sim_id", BigInteger),  # what is in it now, where it is another one: parked
    Column("mode", Text, nullable=False, server_default=""),  # "": works | paused | draining, by an operator's word
    Column("mode_actor", Text, nullable=False, server_default=""),
    Column("mode_reason", Text, nullable=False, server_default=""),
    Column("mode_at", Ms),
)

messages = Table(
    "messages",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),  # the idm
    Column("position", BigInteger, nullable=False),  # of entry; the second key of a claim
    Column("priority", Integer, nullable=False),
    Column("lane_id", BigInteger, nullable=False),
    Column("queue", SmallInteger, nullable=False),
    Column("due_at", Ms, nullable=False),
    Column("waits_for", BigInteger),
    Column("owner", Text),  # of what is in flight
    Column("owner_epoch", Integer),
    Column("admission", Text, nullable=False),
    Column("state", SmallInteger, nullable=False),  # fold of the segments
    Column("delivery", Text, nullable=False),
    Column("class", Text, nullable=False),
    Column("to_given", Text, nullable=False),
    Column("to_number", Text, nullable=False),  # E.164, or a short code
    Column("text", Text, nullable=False),
    Column("alphabet", Text, nullable=False),
    Column("plan", Text, nullable=False, server_default="tpdu"),  # tpdu | unit
    Column("segments", SmallInteger, nullable=False),
    Column("concat_ref", Integer, nullable=False),
    Column("report", SmallInteger, nullable=False),
    Column("in_doubt", Text, nullable=False),
    Column("not_before", Ms),
    Column("expires_at", Ms),
    Column("sim_id", BigInteger),
    Column("channel", Text),  # of the last intent
    Column("avoid_sim_id", BigInteger, nullable=False, server_default="0"),  # refused it; another may not
    Column("touched", SmallInteger, nullable=False, server_default="0"),  # a segment was, or may have been, handed over
    Column("busy", SmallInteger, nullable=False, server_default="0"),  # in hand, or partly sent and to be continued
    Column("source", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("pin_channel", Text, nullable=False, server_default=""),
    Column("campaign", Text, nullable=False, server_default=""),
    Column("agent", Text, nullable=False, server_default=""),
    Column("client_ref", Text),
    Column("callback_url", Text),
    Column("callback_format", Text, nullable=False, server_default=""),  # "": our JSON; else kannel:MASK
    Column("api_key", Text, nullable=False, server_default=""),  # the key's name, or the actor
    Column("reason", Text, nullable=False, server_default=""),  # last thing said about it
    Column("route", Text, nullable=False, server_default=""),  # the rule that chose `target`; "": none did
    Column("zone", Text, nullable=False, server_default=""),  # of the recipient, for windows of theirs; "": no matter
    Column("held", Text, nullable=False, server_default=""),  # who keeps it back: pin | operator | restore | doubt
    Column("wish", Text, nullable=False, server_default=""),  # cancel | hold, as soon as it is in no hands
    Column("text_dropped_at", Ms),  # when `text` was forgotten, before the record
    Column("accepted_at", Ms, nullable=False),
    Column("updated_at", Ms, nullable=False),
    Column("finished_at", Ms),  # when state left 1 for the last time
    Column("optout_checked_at", Ms),  # when the lists were last asked about it: evidence
    Index("ix_messages_claim", "lane_id", text("priority DESC"), "position", sqlite_where=text("queue = 2"),
          postgresql_where=text("queue = 2")),
    Index("ix_messages_put_off", "due_at", sqlite_where=PUT_OFF, postgresql_where=PUT_OFF),
    Index("ix_messages_behind", "waits_for", sqlite_where=text("queue = 3"), postgresql_where=text("queue = 3")),
    Index("ix_messages_busy", "to_number", sqlite_where=text("busy = 1"), postgresql_where=text("busy = 1")),
    Index("ix_messages_expires", "expires_at", sqlite_where=text("expires_at IS NOT NULL AND queue > 0"),
          postgresql_where=text("expires_at IS NOT NULL AND queue > 0")),
    Index("ix_messages_client_ref", "client_ref", sqlite_where=text("client_ref IS NOT NULL"),
          postgresql_where=text("client_ref IS NOT NULL")),
    Index("ix_messages_state", "state", "id"),
    Index("ix_messages_open_to", "to_number", sqlite_where=OPEN, postgresql_where=OPEN),
    Index("ix_messages_pinned", "pin_channel", "id", sqlite_where=PINNED, postgresql_where=PINNED),
)  # fmt: skip

turns = Table(  # strict turn of a dial string
    "turns",
    metadata,
    Column("key", Text, primary_key=True),  # dialer:NAME, or the target
    Column("port", Integer, nullable=False),  # the last one that was taken
    Column("moved_at", Ms, nullable=False),
    sqlite_with_rowid=False,
)

dialer_starts = Table(  # of each dialer that keeps an interval: the message it began last
    "dialer_starts",
    metadata,
    Column("source", Text, primary_key=True),  # dialer:NAME
    Column("message_id", BigInteger, nullable=False),
    Column("intent_at", Ms, nullable=False),
    sqlite_with_rowid=False,
)

senders = Table(  # sticky senders
    "senders",
    metadata,
    Column("number", Text, primary_key=True),
    Column("sim_id", BigInteger, nullable=False),
    Column("at", Ms, nullable=False),
    sqlite_with_rowid=False,
)

sim_usage = Table(  # segments of the current minute, hour, day and month, each with the start of its period
    "sim_usage",
    metadata,
    Column("sim_id", BigInteger, primary_key=True, autoincrement=False),
    Column("minute_start", Ms, nullable=False),
    Column("minute_used", Integer, nullable=False),
    Column("hour_start", Ms, nullable=False),
    Column("hour_used", Integer, nullable=False),
    Column("day_start", Ms, nullable=False),
    Column("day_used", Integer, nullable=False),
    Column("month_start", Ms, nullable=False),
    Column("month_used", Integer, nullable=False),
    Column("recipients", Integer, nullable=False),  # distinct ones of this month
)

sim_recipients = Table(
    "sim_recipients",
    metadata,
    Column("sim_id", BigInteger, nullable=False),
    Column("number", Text, nullable=False),
    Column("month_start", Ms, nullable=False),  # in which it was counted last
    Column("intents", Integer, nullable=False),  # of that month, not returned
    PrimaryKeyConstraint("sim_id", "number"),
    Index("ix_sim_recipients_month", "month_start"),
    sqlite_with_rowid=False,
)

number_faults = Table(  # numbers that fail everywhere
    "number_faults",
    metadata,
    Column("number", Text, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("sims", Text, nullable=False),  # ids of those that tried, joined by commas
    Column("code", Text, nullable=False),  # of the last failure
    Column("detail", Text, nullable=False),
    Column("first_at", Ms, nullable=False),
    Column("last_at", Ms, nullable=False),
    Column("until", Ms),  # quarantine; NULL: not yet
    Column("probe", BigInteger),  # the message that is tried after it; the others wait for its outcome
    Index("ix_number_faults_last", "last_at"),
    sqlite_with_rowid=False,
)

recent_texts = Table(  # guard against the same text to the same number
    "recent_texts",
    metadata,
    Column("digest", LargeBinary, primary_key=True),  # of number and text
    Column("message_id", BigInteger, nullable=False),
    Column("at", Ms, nullable=False),
    Index("ix_recent_texts_at", "at"),
    sqlite_with_rowid=False,
)

operations = Table(  # what operators do to many messages at once, in small steps
    "operations",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Ms, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("filter", Text, nullable=False),  # JSON
    Column("value", Text, nullable=False, server_default=""),  # the new priority, or target
    Column("reason", Text, nullable=False, server_default=""),
    Column("last_id", BigInteger, nullable=False),  # messages up to this one: what comes later is not meant
    Column("cursor", BigInteger, nullable=False, server_default="0"),  # how far it has come
    Column("matched", BigInteger, nullable=False, server_default="0"),
    Column("changed", BigInteger, nullable=False, server_default="0"),
    Column("state", Text, nullable=False),  # running | done | stopped
    Column("finished_at", Ms),
    Index("ix_operations_running", "id", sqlite_where=text("state = 'running'"),
          postgresql_where=text("state = 'running'")),
    sqlite_autoincrement=True,
)  # fmt: skip

segments = Table(
    "segments",
    metadata,
    Column("message_id", BigInteger, nullable=False),
    Column("seq", SmallInteger, nullable=False),  # from 1
    Column("state", Text, nullable=False),
    Column("parts", SmallInteger, nullable=False, server_default="1"),  # short messages the network charges for
    Column("parts_ok", SmallInteger, nullable=False, server_default="0"),
    Column("tries", SmallInteger, nullable=False, server_default="0"),  # counted attempts
    Column("attempt", Integer, nullable=False, server_default="0"),  # number of the last one
    Column("sim_id", BigInteger),
    Column("channel", Text),
    Column("tp_mr", SmallInteger),
    Column("tp_mr_expected", SmallInteger),  # of a segment in doubt: the SIM's last one + 1
    Column("submitted_at", Ms),
    Column("deadline_at", Ms),  # for a report, or for the doubt to be settled
    Column("tp_status", SmallInteger),
    Column("reported_at", Ms),
    Column("code", Text, nullable=False, server_default=""),
    PrimaryKeyConstraint("message_id", "seq"),
    Index("ix_segments_mr", "sim_id", "tp_mr", "submitted_at", sqlite_where=text("tp_mr IS NOT NULL"),
          postgresql_where=text("tp_mr IS NOT NULL")),
    Index("ix_segments_no_mr", "sim_id", "submitted_at",
          sqlite_where=text("tp_mr IS NULL AND submitted_at IS NOT NULL"),
          postgresql_where=text("tp_mr IS NULL AND submitted_at IS NOT NULL")),
    Index("ix_segments_deadline", "deadline_at", sqlite_where=text("deadline_at IS NOT NULL"),
          postgresql_where=text("deadline_at IS NOT NULL")),
    Index("ix_segments_doubtful", "message_id", sqlite_where=DOUBTFUL, postgresql_where=DOUBTFUL),
    sqlite_with_rowid=False,
)  # fmt: skip

attempts = Table(
    "attempts",
    metadata,
    Column("message_id", BigInteger, nullable=False),
    Column("seq", SmallInteger, nullable=False),
    Column("number", Integer, nullable=False),  # from 1, per segment
    Column("channel", Text, nullable=False),
    Column("sim_id", BigInteger, nullable=False),
    Column("owner", Text, nullable=False),
    Column("owner_epoch", Integer, nullable=False),
    Column("intent_at", Ms, nullable=False),
    Column("started_at", Ms),  # first byte of AT+CMGS; NULL: nothing was written
    Column("finished_at", Ms),
    Column("outcome", Text),  # sent | not_sent | in_doubt; NULL: in flight
    Column("failure", Text),  # its class (model.FailureClass); NULL: sent, withdrawn or in flight
    Column("code", Text, nullable=False, server_default=""),
    Column("detail", Text, nullable=False, server_default=""),
    Column("tp_mr", SmallInteger),
    PrimaryKeyConstraint("message_id", "seq", "number"),
    sqlite_with_rowid=False,
)

events = Table(
    "events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("message_id", BigInteger, nullable=False),
    Column("seq", SmallInteger),  # NULL: of the message as a whole
    Column("at", Ms, nullable=False),
    Column("event", Text, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text),  # NULL: it changed nothing
    Column("channel", Text),
    Column("actor", Text, nullable=False, server_default=""),
    Column("detail", Text, nullable=False, server_default=""),
    Index("ix_events_message", "message_id"),
)

status_reports = Table(
    "status_reports",
    metadata,
    Column("id", Id, primary_key=True),
    Column("received_at", Ms, nullable=False),
    Column("channel", Text, nullable=False),
    Column("sim_id", BigInteger, nullable=False),
    Column("tp_mr", SmallInteger, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("tp_status", SmallInteger, nullable=False),
    Column("discharged_at", Ms),
    Column("raw", Text, nullable=False),  # PDU as hex
    Column("digest", LargeBinary, nullable=False),  # of `raw`: recognises a repetition
    Column("listing", Text, nullable=False),
    Column("message_id", BigInteger),  # NULL: matches nothing yet
    Column("seq", SmallInteger),
    Index("ix_status_reports_digest", "sim_id", "digest"),
    Index("ix_status_reports_waiting", "sim_id", "received_at", sqlite_where=text("message_id IS NULL"),
          postgresql_where=text("message_id IS NULL")),
    Index("ix_status_reports_message", "message_id"),
)  # fmt: skip

inbound_parts = Table(
    "inbound_parts",
    metadata,
    Column("id", Id, primary_key=True),
    Column("received_at", Ms, nullable=False),
    Column("channel", Text, nullable=False),
    Column("sim_id", BigInteger, nullable=False),
    Column("raw", Text, nullable=False),  # PDU as hex, also when it decodes to nothing
    Column("digest", LargeBinary, nullable=False),  # of `raw`: recognises a redelivery
    Column("listing", Text, nullable=False),
    Column("storage", Text, nullable=False),
    Column("storage_index", Integer),
    Column("duplicate_of", BigInteger),
    Column("error", Text),  # why it could not be decoded
    Column("originator", Text, nullable=False, server_default=""),
    Column("originator_ton", SmallInteger),
    Column("sent_at", Ms),  # TP-SCTS
    Column("pid", SmallInteger),
    Column("dcs", SmallInteger),
    Column("concat_ref", Integer),
    Column("concat_bits", SmallInteger),
    Column("concat_total", SmallInteger),
    Column("concat_seq", SmallInteger),
    Column("text", Text),
    Column("user_data", LargeBinary),  # octets after the header, for what is joined or no text
    Column("message_id", BigInteger),  # of the inbound message it was joined into
    Column("assembly_id", BigInteger),  # what it waits for the rest with
    Index("ix_inbound_parts_digest", "sim_id", "digest"),
    Index("ix_inbound_parts_assembly", "assembly_id", sqlite_where=text("assembly_id IS NOT NULL"),
          postgresql_where=text("assembly_id IS NOT NULL")),
    Index("ix_inbound_parts_message", "message_id"),
)  # fmt: skip

inbound_assemblies = Table(
    "inbound_assemblies",
    metadata,
    Column("id", Id, primary_key=True),
    Column("sim_id", BigInteger, nullable=False),
    Column("originator", Text, nullable=False),
    Column("concat_ref", Integer, nullable=False),
    Column("concat_bits", SmallInteger, nullable=False),
    Column("concat_total", SmallInteger, nullable=False),
    Column("opened_at", Ms, nullable=False),
    Column("deadline_at", Ms),  # when what there is is handed over; NULL: it was
    Column("message_id", BigInteger),  # the inbound message it became
    Column("continues", BigInteger),  # the message that was handed over without these parts
    Index("ix_inbound_assemblies_key", "sim_id", "originator", "concat_ref"),
    Index("ix_inbound_assemblies_deadline", "deadline_at", sqlite_where=text("deadline_at IS NOT NULL"),
          postgresql_where=text("deadline_at IS NOT NULL")),
    Index("ix_inbound_assemblies_opened", "opened_at"),
    Index("ix_inbound_assemblies_message", "message_id"),
    sqlite_autoincrement=True,  # parts keep naming an assembly that is forgotten
)  # fmt: skip

inbound_messages = Table(
    "inbound_messages",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),  # of a counter: the order they were handed over in
    Column("at", Ms, nullable=False),  # when it was handed over
    Column("received_at", Ms, nullable=False),  # its first part
    Column("channel", Text, nullable=False),
    Column("sim_id", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),  # text | data | undecodable
    Column("originator", Text, nullable=False),  # as received
    Column("number", Text, nullable=False),  # E.164 or short code; "": neither
    Column("recipient", Text, nullable=False),  # the SIM's own number; "": unknown
    Column("sent_at", Ms),  # TP-SCTS of its first part
    Column("text", Text),
    Column("data", LargeBinary),
    Column("pid", SmallInteger),
    Column("dcs", SmallInteger),
    Column("parts", SmallInteger, nullable=False),
    Column("parts_total", SmallInteger, nullable=False),
    Column("continues", BigInteger),
    Column("error", Text),
    Column("intent", Text, nullable=False, server_default=""),  # opt_out | opt_in | help | none; "": not judged
    Column("tier", Text, nullable=False, server_default=""),
    Column("rule", Text, nullable=False, server_default=""),
    Column("text_dropped_at", Ms),  # when `text` and `data` were forgotten, before the record
    Index("ix_inbound_messages_number", "number", "id"),
)

optouts = Table(
    "optouts",
    metadata,
    Column("number", Text, nullable=False),
    Column("scope", Text, nullable=False),  # global; later sender and list scopes
    Column("state", Text, nullable=False),  # out | in
    Column("wrote_since", SmallInteger, nullable=False),  # a later text reopened one-to-one replies
    Column("source", Text, nullable=False),  # keyword | operator | api | import
    Column("since", Ms, nullable=False),
    Column("event_id", BigInteger, nullable=False),  # the evidence
    PrimaryKeyConstraint("number", "scope"),
    Index("ix_optouts_since", "state", "since"),
    sqlite_with_rowid=False,
)

optout_events = Table(  # append-only
    "optout_events",
    metadata,
    Column("id", Id, primary_key=True),
    Column("at", Ms, nullable=False),  # honoured at
    Column("number", Text, nullable=False),
    Column("number_received", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("intent", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("prior_state", Text, nullable=False),  # none | out | in
    Column("state", Text, nullable=False),
    Column("text", Text),
    Column("tier", Text, nullable=False, server_default=""),
    Column("rule", Text, nullable=False, server_default=""),
    Column("language", Text, nullable=False, server_default=""),
    Column("version", Text, nullable=False, server_default=""),
    Column("channel", Text),
    Column("inbound_id", BigInteger),
    Column("sent_at", Ms),  # the SMS centre's time
    Column("confirmation_id", BigInteger),  # the message that answers it
    Column("blocked", Integer, nullable=False, server_default="0"),  # messages that were queued
    Column("in_hand", Integer, nullable=False, server_default="0"),  # messages a channel had; called back if possible
    Column("evidence", Text, nullable=False, server_default=""),  # an operator's reason
    Index("ix_optout_events_number", "number", "id"),
    Index("ix_optout_events_inbound", "inbound_id"),
    sqlite_autoincrement=True,
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=False),  # of a counter: the order of commits
    Column("at", Ms, nullable=False),
    Column("type", Text, nullable=False),
    Column("message_id", BigInteger),
    Column("inbound_id", BigInteger),
    Column("optout_event_id", BigInteger),
    Column("channel", Text),
    Column("data", Text, nullable=False),  # JSON: what could have changed since
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Id, primary_key=True),
    Column("outbox_id", BigInteger, nullable=False),
    Column("endpoint", Text, nullable=False),  # webhook:NAME, or callback:ORIGIN
    Column("url", Text, nullable=False, server_default=""),  # of a callback; a webhook's is in the configuration
    Column("format", Text, nullable=False, server_default=""),  # as messages.callback_format
    Column("state", SmallInteger, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", Ms, nullable=False),
    Column("next_at", Ms, nullable=False),
    Column("finished_at", Ms),
    Column("status", Integer),  # of the last answer
    Column("error", Text, nullable=False, server_default=""),
    Index(
        "ix_deliveries_pending", "endpoint", "id", sqlite_where=text("state = 0"), postgresql_where=text("state = 0")
    ),
    Index("ix_deliveries_outbox", "outbox_id"),
    Index("ix_deliveries_finished", "state", "finished_at"),
    sqlite_autoincrement=True,
)

key_usage = Table(
    "key_usage",
    metadata,
    Column("api_key", Text, nullable=False),
    Column("period", Text, nullable=False),  # hour | day
    Column("start", Ms, nullable=False),
    Column("segments", BigInteger, nullable=False),
    PrimaryKeyConstraint("api_key", "period"),
    sqlite_with_rowid=False,
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("api_key", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),  # SHA-256 of what was asked
    Column("answer", Text, nullable=False),  # JSON: what was answered
    Column("created_at", Ms, nullable=False),
    PrimaryKeyConstraint("api_key", "key"),
    Index("ix_idempotency_created", "created_at"),
)
