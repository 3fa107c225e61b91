"""Integrations, effects, messages, bookings, knowledge, LLM decisions; health probes, incidents, alerts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# What the words of the knowledge base are searched with. SQLite: FTS5 over the pieces' own text, kept in step
# by triggers. PostgreSQL: a column of its own that leaves out accents as FTS5 does, headings above text.
_FTS_SQLITE = (
    "CREATE VIRTUAL TABLE knowledge_fts USING fts5(heading, text, content='knowledge_chunk',"
    " content_rowid='id', tokenize='unicode61 remove_diacritics 2', prefix='2 3')",
    "CREATE TRIGGER knowledge_fts_insert AFTER INSERT ON knowledge_chunk BEGIN"
    " INSERT INTO knowledge_fts (rowid, heading, text) VALUES (new.id, new.heading, new.text); END",
    "CREATE TRIGGER knowledge_fts_delete AFTER DELETE ON knowledge_chunk BEGIN INSERT INTO knowledge_fts"
    " (knowledge_fts, rowid, heading, text) VALUES ('delete', old.id, old.heading, old.text); END",
    "CREATE TRIGGER knowledge_fts_update AFTER UPDATE OF heading, text ON knowledge_chunk BEGIN"
    " INSERT INTO knowledge_fts (knowledge_fts, rowid, heading, text)"
    " VALUES ('delete', old.id, old.heading, old.text);"
    " INSERT INTO knowledge_fts (rowid, heading, text) VALUES (new.id, new.heading, new.text); END",
)
_FTS_POSTGRES = (
    # Text of one byte a character is plain already, or of a server that cannot decompose it.
    "CREATE FUNCTION knowledge_fold(words text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN"
    " CASE WHEN octet_length(words) = char_length(words) THEN lower(words) ELSE"
    " regexp_replace(normalize(lower(words), NFD), '[\\u0300-\\u036f]', '', 'g') END",
    "CREATE FUNCTION knowledge_words(heading text, body text) RETURNS tsvector LANGUAGE sql IMMUTABLE"
    " PARALLEL SAFE RETURN setweight(to_tsvector('simple', knowledge_fold(heading)), 'A')"
    " || setweight(to_tsvector('simple', knowledge_fold(body)), 'D')",
    "ALTER TABLE knowledge_chunk ADD COLUMN words tsvector"
    " GENERATED ALWAYS AS (knowledge_words(heading, text)) STORED",
    "CREATE INDEX ix_knowledge_chunk_words ON knowledge_chunk USING gin (words)",
)


def upgrade() -> None:
    op.create_table(
        "health_incident",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("check_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("advice", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("alerted_at", sa.BigInteger(), nullable=True),
        sa.Column("alerted_state", sa.String(), nullable=False),
        sa.Column("over_alerted_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_health_incident_open",
        "health_incident",
        ["check_id"],
        unique=True,
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )
    op.create_index(op.f("ix_health_incident_check_id"), "health_incident", ["check_id"], unique=False)
    op.create_index(op.f("ix_health_incident_started_at"), "health_incident", ["started_at"], unique=False)
    op.create_table(
        "health_probe",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("check_id", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("took_ms", sa.Float(), nullable=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("category", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_health_probe_check_at", "health_probe", ["check_id", "at"], unique=False)
    op.create_table(
        "health_state",
        sa.Column("check_id", sa.String(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("check_id"),
    )
    op.create_index(op.f("ix_health_state_updated_at"), "health_state", ["updated_at"], unique=False)
    op.create_table(
        "health_rollup",
        sa.Column("check_id", sa.String(), nullable=False),
        sa.Column("start", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("length_ms", sa.BigInteger(), nullable=False),
        sa.Column("up", sa.Integer(), nullable=False),
        sa.Column("degraded", sa.Integer(), nullable=False),
        sa.Column("down", sa.Integer(), nullable=False),
        sa.Column("maintenance", sa.Integer(), nullable=False),
        sa.Column("p50_ms", sa.Float(), nullable=True),
        sa.Column("p95_ms", sa.Float(), nullable=True),
        sa.Column("spread", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("check_id", "start"),
    )
    op.create_table(
        "health_rule",
        sa.Column("check_id", sa.String(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("interval_seconds", sa.Float(), nullable=True),
        sa.Column("failure_threshold", sa.Integer(), nullable=True),
        sa.Column("slow_ms", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("check_id"),
    )
    op.create_table(
        "maintenance_window",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("timezone", sa.String(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=True),
        sa.Column("ends_at", sa.BigInteger(), nullable=True),
        sa.Column("cron", sa.String(), nullable=False),
        sa.Column("minutes", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "alert_channel",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("company_id", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("least", sa.String(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["company_id"], ["company.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "effect",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("company_id", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("provider_id", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error_category", sa.String(), nullable=True),
        sa.Column("error_message", sa.String(), nullable=True),
        sa.Column("error_advice", sa.String(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["company_id"], ["company.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("company_id", "key"),
    )
    op.create_index(op.f("ix_effect_created_at"), "effect", ["created_at"], unique=False)
    op.create_index(op.f("ix_effect_kind"), "effect", ["kind"], unique=False)
    op.create_index(
        "ix_effect_shared_key",
        "effect",
        ["key"],
        unique=True,
        sqlite_where=sa.text("company_id IS NULL"),
        postgresql_where=sa.text("company_id IS NULL"),
    )
    op.create_table(
        "integration",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("company_id", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("base_url", sa.String(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["company_id"], ["company.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("company_id", "kind", "name"),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_integration_company_id"), "integration", ["company_id"], unique=False)
    op.create_index(
        "ix_integration_shared_name",
        "integration",
        ["kind", "name"],
        unique=True,
        sqlite_where=sa.text("company_id IS NULL"),
        postgresql_where=sa.text("company_id IS NULL"),
    )
    op.create_table(
        "knowledge_source",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("company_id", sa.Integer(), nullable=True),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("uri", sa.String(), nullable=False),
        sa.Column("media_type", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("chunk_count", sa.Integer(), nullable=False),
        sa.Column("embedding_model", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["company_id"], ["company.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("company_id", "uri"),
    )
    op.create_table(
        "booking",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("effect_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("partner", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("provider_id", sa.String(), nullable=False),
        sa.Column("who", sa.String(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=True),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["company_id"], ["company.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["effect_id"], ["effect.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("effect_id"),
    )
    op.create_index(op.f("ix_booking_company_id"), "booking", ["company_id"], unique=False)
    op.create_index(op.f("ix_booking_created_at"), "booking", ["created_at"], unique=False)
    op.create_table(
        "knowledge_chunk",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source_id", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("heading", sa.String(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("embedding", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["source_id"], ["knowledge_source.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_knowledge_chunk_source_id"), "knowledge_chunk", ["source_id"], unique=False)
    for statement in _FTS_SQLITE if op.get_bind().dialect.name == "sqlite" else _FTS_POSTGRES:
        op.execute(sa.text(statement))
    op.create_table(
        "llm_decision",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("company_id", sa.Integer(), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("agent_row", sa.Integer(), nullable=True),
        sa.Column("agent_name", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("confidence", sa.Float(), nullable=True),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("tokens_in", sa.Integer(), nullable=True),
        sa.Column("tokens_out", sa.Integer(), nullable=True),
        sa.Column("cost", sa.Float(), nullable=True),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("took_ms", sa.Integer(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("error_category", sa.String(), nullable=True),
        sa.Column("error_message", sa.String(), nullable=True),
        sa.Column("error_advice", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["agent_row"], ["agent.id"], ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["company_id"], ["company.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(op.f("ix_llm_decision_at"), "llm_decision", ["at"], unique=False)
    op.create_index(op.f("ix_llm_decision_company_id"), "llm_decision", ["company_id"], unique=False)
    op.create_table(
        "message",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("effect_id", sa.String(), nullable=False),
        sa.Column("company_id", sa.Integer(), nullable=True),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("adapter", sa.String(), nullable=False),
        sa.Column("integration_id", sa.Integer(), nullable=True),
        sa.Column("integration", sa.String(), nullable=False),
        sa.Column("agent_row", sa.Integer(), nullable=True),
        sa.Column("recipient", sa.String(), nullable=False),
        sa.Column("sender", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("template", sa.Text(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("remark", sa.Text(), nullable=False),
        sa.Column("resend_of", sa.String(), nullable=False),
        sa.Column("simulated", sa.Boolean(), nullable=False),
        sa.Column("provider_id", sa.String(), nullable=False),
        sa.Column("error_category", sa.String(), nullable=True),
        sa.Column("error_message", sa.String(), nullable=True),
        sa.Column("error_advice", sa.String(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("next_look_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["agent_row"], ["agent.id"], ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["company_id"], ["company.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["effect_id"], ["effect.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("effect_id"),
    )
    op.create_index(op.f("ix_message_company_id"), "message", ["company_id"], unique=False)
    op.create_index(op.f("ix_message_created_at"), "message", ["created_at"], unique=False)
    op.create_index(op.f("ix_message_next_look_at"), "message", ["next_look_at"], unique=False)
    op.create_index(op.f("ix_message_provider_id"), "message", ["provider_id"], unique=False)
    op.create_table(
        "message_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("message_id", sa.String(), nullable=False),
        sa.Column("dedup", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["message_id"], ["message.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("message_id", "dedup"),
    )
