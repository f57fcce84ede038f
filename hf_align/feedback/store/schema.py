"""Tables of the preference store."""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    JSON,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
)

VERSION = 1
"""Version of the tables; `migrations` brings older stores to it."""

metadata = MetaData()
ID = String(64)
NAME = String(255)

meta = Table("meta", metadata, Column("key", NAME, primary_key=True), Column("value", JSON, nullable=False))
prompts = Table(
    "prompts",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", ID, nullable=False, unique=True),
    Column("content", JSON, nullable=False),
    Column("pool", NAME, nullable=False),
    Column("domain", NAME),
    Column("columns", JSON, nullable=False),
    Column("added_at", Float, nullable=False),
)
responses = Table(
    "responses",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", ID, nullable=False, unique=True),
    Column("prompt_id", ID, ForeignKey("prompts.id"), nullable=False, index=True),
    Column("content", JSON, nullable=False),
    Column("source", NAME, nullable=False),
    Column("settings", JSON, nullable=False),
    Column("added_at", Float, nullable=False),
)
tasks = Table(
    "tasks",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", ID, nullable=False, unique=True),
    Column("prompt_id", ID, ForeignKey("prompts.id"), nullable=False, index=True),
    Column("first_id", ID, ForeignKey("responses.id"), nullable=False),
    Column("second_id", ID, ForeignKey("responses.id"), nullable=False),
    Column("wanted", Integer, nullable=False),
    Column("gold", Float),
    Column("domain", NAME),
    Column("strategy", NAME, nullable=False),
    Column("choice", JSON, nullable=False),
    Column("priority", Float, nullable=False),
    Column("added_at", Float, nullable=False),
)
annotators = Table(
    "annotators",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("kind", NAME, nullable=False),
    Column("group", NAME),
    Column("domains", JSON, nullable=False),
    Column("right", Float, nullable=False),
    Column("wrong", Float, nullable=False),
    Column("added_at", Float, nullable=False),
)
leases = Table(
    "leases",
    metadata,
    Column("id", ID, primary_key=True),
    Column("task_id", ID, ForeignKey("tasks.id"), nullable=False, index=True),
    Column("annotator", NAME, ForeignKey("annotators.name"), nullable=False, index=True),
    Column("left", String(6), nullable=False),
    Column("leased_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("closed", Boolean, nullable=False),  # answered, skipped or given back
)
answers = Table(
    "answers",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("id", ID, nullable=False, unique=True),
    Column("task_id", ID, ForeignKey("tasks.id"), nullable=False, index=True),
    Column("annotator", NAME, ForeignKey("annotators.name"), nullable=False, index=True),
    Column("kind", String(6), nullable=False),
    Column("preference", Float),
    Column("left", String(6)),
    Column("confidence", Float),
    Column("reason", Text),
    Column("shown_at", Float),
    Column("answered_at", Float, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("undo", Boolean, nullable=False),  # kind == "undo": an attempt has one answer and at most one undo
    Column("lease_id", ID, ForeignKey("leases.id")),
    Column("details", JSON, nullable=False),
    UniqueConstraint("task_id", "annotator", "attempt", "undo", name="one_answer"),
)
Index("open_leases", leases.c.task_id, leases.c.closed, leases.c.expires_at)

for action in ("UPDATE", "DELETE"):
    event.listen(
        answers,
        "after_create",
        DDL(
            f"CREATE TRIGGER answers_{action.lower()} BEFORE {action} ON answers "
            "BEGIN SELECT RAISE(ABORT, 'answers are only added'); END"
        ).execute_if(dialect="sqlite"),
    )
