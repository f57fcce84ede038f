"""Making a store's tables, and bringing those of an older version to today's.

Each step from a version to the next is written once and stays as it is; all steps that a store needs are one
transaction, so that a kill leaves the old version. The SQL is what SQLite and PostgreSQL share.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection, Engine, insert, inspect, select, update
from sqlalchemy.exc import DBAPIError

from hf_align.errors import UserError
from hf_align.feedback.store.connection import name_of, reading, use_wal, writing
from hf_align.feedback.store.schema import ONLY_ADDED, VERSION, meta, metadata

Facts = Mapping[str, Any]


def prepare(engine: Engine) -> Facts:
    """Make the tables of a new store, or migrate an older one's; a store of this version is only read.

    Returns:
        What the store says of itself: "version", and "salt", the secret of its draws.

    Raises:
        UserError: The database is another program's, of a newer version, or can't be opened.
    """
    with reading(engine) as connection:
        facts = read_facts(connection)
    if facts is None:
        facts = _make(engine)
    if facts["version"] < VERSION:
        facts = _migrate(engine)
    return facts


def read_facts(connection: Connection) -> Facts | None:
    """Version and secret of a store; None if the database has no tables of one.

    Raises:
        UserError: The tables are another program's, or of a newer version.
    """
    name = name_of(connection.engine)
    tables = set(inspect(connection).get_table_names())
    if "meta" not in tables:
        others = sorted(tables if connection.dialect.name == "sqlite" else tables & set(metadata.tables))
        if others:
            raise UserError(
                f"store {name}: the database has the table {others[0]!r} of another program; give another database"
            )
        return None
    try:
        facts = {row.key: row.value for row in connection.execute(select(meta))}
    except DBAPIError:
        facts = {}
    version = facts.get("version")
    if not isinstance(version, int) or "salt" not in facts:
        raise UserError(f"store {name}: its table 'meta' is another program's; give another database")
    if version > VERSION:
        raise UserError(f"store {name} has version {version} and this hf_align reads up to {VERSION}: upgrade hf_align")
    return facts


def _make(engine: Engine) -> Facts:
    if engine.dialect.name == "sqlite":
        use_wal(engine)
    try:
        with writing(engine, locked=False) as connection:
            facts = read_facts(connection)
            if facts is None:
                metadata.create_all(connection)
                facts = {"version": VERSION, "salt": secrets.token_hex(16)}
                connection.execute(insert(meta), [{"key": key, "value": value} for key, value in facts.items()])
    except DBAPIError:  # elsewhere than on SQLite, another process may have made the tables just now
        with reading(engine) as connection:
            facts = read_facts(connection)
        if facts is None:
            raise
    return facts


def _migrate(engine: Engine) -> Facts:
    with writing(engine) as connection:
        facts = read_facts(connection)
        assert facts is not None
        for version in range(facts["version"] + 1, VERSION + 1):  # none if another process was first
            STEPS[version](connection)
            connection.execute(update(meta).where(meta.c.key == "version").values(value=version))
    return {**facts, "version": VERSION}


def _to_2(connection: Connection) -> None:
    """Tasks count their answers, so that giving one out doesn't count all; indexes for that."""
    run = connection.exec_driver_sql
    stands = (
        "a.kind <> 'undo' AND NOT EXISTS (SELECT 1 FROM answers u WHERE u.kind = 'undo' "
        "AND u.task_id = a.task_id AND u.annotator = a.annotator AND u.attempt = a.attempt)"
    )
    given = f"SELECT count(*) FROM answers a WHERE a.task_id = tasks.id AND a.kind = 'answer' AND {stands}"  # nosec B608
    run("ALTER TABLE tasks ADD COLUMN given INTEGER DEFAULT 0 NOT NULL")
    run(f"UPDATE tasks SET given = ({given})")  # nosec B608 # of constants
    run("CREATE INDEX task_queue ON tasks (priority DESC, given DESC, number) WHERE gold IS NULL AND given < wanted")
    run("CREATE INDEX gold_questions ON tasks (number) WHERE gold IS NOT NULL")
    run("DROP INDEX ix_leases_annotator")
    run("CREATE INDEX leases_of ON leases (annotator, closed, expires_at)")
    # When the answer of an expired lease came late, version 1 left a newer lease of the same task open.
    theirs = "a.task_id = leases.task_id AND a.annotator = leases.annotator"
    done = f"SELECT 1 FROM answers a WHERE {theirs} AND {stands}"  # nosec B608 # of constants
    run(f"UPDATE leases SET closed = (1 = 1) WHERE NOT closed AND EXISTS ({done})")  # nosec B608 # of constants
    if connection.dialect.name == "postgresql":  # version 1 had them on SQLite
        for statement in ONLY_ADDED["postgresql"]:
            run(statement)


def _to_3(connection: Connection) -> None:
    """The answers that tasks count are votes: an adjudicator's is none."""
    decided = (
        "SELECT count(*) FROM answers a JOIN annotators d ON d.name = a.annotator WHERE d.kind = 'adjudicator' "
        "AND a.task_id = tasks.id AND a.kind = 'answer' AND NOT EXISTS (SELECT 1 FROM answers u WHERE u.kind = 'undo' "
        "AND u.task_id = a.task_id AND u.annotator = a.annotator AND u.attempt = a.attempt)"
    )
    connection.exec_driver_sql("CREATE INDEX annotators_by_kind ON annotators (kind)")
    connection.exec_driver_sql(f"UPDATE tasks SET given = given - ({decided})")  # nosec B608 # of constants


def _to_4(connection: Connection) -> None:
    """Indexes that hold all that is read to give out a task and to count an annotator's progress."""
    run = connection.exec_driver_sql
    run("DROP INDEX task_queue")
    queue = "priority DESC, given DESC, number, id"
    run(f"CREATE INDEX task_queue ON tasks ({queue}) WHERE gold IS NULL AND given < wanted")
    run("CREATE INDEX wanted_tasks ON tasks (id, gold, given, wanted, domain)")
    run("CREATE INDEX answers_of ON answers (annotator, undo, task_id, attempt, kind)")


STEPS: Mapping[int, Callable[[Connection], None]] = {2: _to_2, 3: _to_3, 4: _to_4}
"""Step to each version from the one before it."""
