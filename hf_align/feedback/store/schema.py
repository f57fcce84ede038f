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
    and_,
    event,
    text,
)

VERSION = 4
"""Version of the tables; `migrations` brings older stores to it."""

metadata = MetaData()
LONGEST_ID, LONGEST_NAME = 64, 255
ID = String(LONGEST_ID)
NAME = String(LONGEST_NAME)
NUMBER = Float(53)  # seconds since 1970 need double precision

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
    Column("added_at", NUMBER, nullable=False),
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
    Column("added_at", NUMBER, nullable=False),
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
    Column("gold", NUMBER),
    Column("domain", NAME),
    Column("strategy", NAME, nullable=False),
    Column("choice", JSON, nullable=False),
    Column("priority", NUMBER, nullable=False),
    Column("added_at", NUMBER, nullable=False),
    Column("given", Integer, nullable=False, server_default=text("0")),  # votes that stand; written by `events` alone
)
wants = and_(tasks.c.gold.is_(None), tasks.c.given < tasks.c.wanted)
"""Condition that a task, no gold question, has fewer votes than wanted."""
is_gold = tasks.c.gold.is_not(None)
"""Condition that a task is a gold question."""
Index(
    "task_queue",
    *(tasks.c.priority.desc(), tasks.c.given.desc(), tasks.c.number, tasks.c.id),
    sqlite_where=wants,
    postgresql_where=wants,
)
Index("wanted_tasks", tasks.c.id, tasks.c.gold, tasks.c.given, tasks.c.wanted, tasks.c.domain)
Index("gold_questions", tasks.c.number, sqlite_where=is_gold, postgresql_where=is_gold)
annotators = Table(
    "annotators",
    metadata,
    Column("name", NAME, primary_key=True),
    Column("kind", NAME, nullable=False),
    Column("group", NAME),
    Column("domains", JSON, nullable=False),
    Column("right", NUMBER, nullable=False),
    Column("wrong", NUMBER, nullable=False),
    Column("added_at", NUMBER, nullable=False),
)
Index("annotators_by_kind", annotators.c.kind)
leases = Table(
    "leases",
    metadata,
    Column("id", ID, primary_key=True),
    Column("task_id", ID, ForeignKey("tasks.id"), nullable=False, index=True),
    Column("annotator", NAME, ForeignKey("annotators.name"), nullable=False),
    Column("left", String(6), nullable=False),
    Column("leased_at", NUMBER, nullable=False),
    Column("expires_at", NUMBER, nullable=False),
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
    Column("preference", NUMBER),
    Column("left", String(6)),
    Column("confidence", NUMBER),
    Column("reason", Text),
    Column("shown_at", NUMBER),
    Column("answered_at", NUMBER, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("undo", Boolean, nullable=False),  # kind == "undo": an attempt has one answer and at most one undo
    Column("lease_id", ID, ForeignKey("leases.id")),
    Column("details", JSON, nullable=False),
    UniqueConstraint("task_id", "annotator", "attempt", "undo", name="one_answer"),
)
# All that is asked of an annotator's events stands in the index: their rows lie far apart.
Index("answers_of", *(answers.c[name] for name in ("annotator", "undo", "task_id", "attempt", "kind")))
Index("open_leases", leases.c.task_id, leases.c.closed, leases.c.expires_at)
Index("leases_of", leases.c.annotator, leases.c.closed, leases.c.expires_at)

ONLY_ADDED = {
    "sqlite": [
        f"CREATE TRIGGER answers_{action.lower()} BEFORE {action} ON answers "
        "BEGIN SELECT RAISE(ABORT, 'answers are only added'); END"
        for action in ("UPDATE", "DELETE")
    ],
    "postgresql": [
        "CREATE FUNCTION refuse_change_of_answers() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'answers are only added'; END $$",
        "CREATE TRIGGER answers_change BEFORE UPDATE OR DELETE ON answers "
        "FOR EACH ROW EXECUTE FUNCTION refuse_change_of_answers()",
    ],
}
"""Statements by which the database itself refuses to change answers."""
for _dialect, _statements in ONLY_ADDED.items():
    for _statement in _statements:
        event.listen(answers, "after_create", DDL(_statement).execute_if(dialect=_dialect))
