import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, update

from hf_align.errors import UserError
from hf_align.feedback import PreferenceStore
from hf_align.feedback.store.connection import writing
from hf_align.feedback.store.migrations import STEPS
from hf_align.feedback.store.schema import VERSION, meta

from .stores import Clock, finish, give, open_and_die, open_at, start

VERSION_1 = (Path(__file__).parent / "version-1.sql").read_text(encoding="utf-8")
"""A store that version 1 made: answers, a gold question, skips, undos, expired, held and released leases."""
NOW = 1_790_000_300.0


@pytest.fixture(params=range(1, VERSION))
def file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A database of each older version, the later ones made by the steps to them."""
    path = tmp_path / "prefs.db"
    old = sqlite3.connect(path)
    old.executescript(VERSION_1)
    old.execute("PRAGMA journal_mode=WAL")
    old.close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for step in range(2, request.param + 1):
            STEPS[step](connection)
            connection.execute(update(meta).where(meta.c.key == "version").values(value=step))
    engine.dispose()
    return path


def rows(file: Path, table: str, *without: str) -> list[dict[str, Any]]:
    """Rows of a table, without some columns."""
    with sqlite3.connect(file) as database:
        database.row_factory = sqlite3.Row
        all_columns = [dict(row) for row in database.execute(f"SELECT * FROM {table}")]
    return [{key: value for key, value in row.items() if key not in without} for row in all_columns]


def version(file: Path) -> int:
    with sqlite3.connect(file) as database:
        return database.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()[0]


def test_a_store_of_an_older_version_is_migrated_and_loses_nothing(file):
    tables = ("prompts", "responses", "tasks", "annotators", "leases", "answers")
    before = {table: rows(file, table, "closed", "given") for table in tables}
    store = PreferenceStore(f"sqlite:///{file}", clock=Clock(NOW))
    assert version(file) == VERSION
    after = {table: rows(file, table, "closed", "given") for table in tables}
    assert after == before
    assert [(a.id, a.annotator, a.preference) for a in store.answers()] == [
        *[("anna-gold", "anna", 1.0), ("anna-2", "anna", 0.0), ("ben-1", "ben", 1.0)],
        *[("cleo-late", "cleo", 1.0), ("judge-1", "judge", 0.75)],
    ]
    assert [e.kind for e in store.events()].count("undo") == 2
    assert next(store.answers()).reason == "Wien ist größer."
    store.close()


def test_a_migrated_store_gives_out_what_is_left(file):
    store = PreferenceStore(f"sqlite:///{file}", clock=Clock(NOW))
    joke = next(task for task in store.tasks().values() if task.wanted == 3 and task.gold is None)
    fruit = next(task for task in store.tasks().values() if task.wanted == 2)
    with sqlite3.connect(file) as database:
        given = dict(database.execute("SELECT id, given FROM tasks"))
    assert [given[task.id] for task in store.tasks().values()] == [2, 1, 1, 1]
    # cleo answered fruit late, and version 1 went on to show it; dora holds joke.
    assert give(store, "cleo", gold_share=0.0).task == joke
    assert give(store, "dora").id == "91aae1256f7fc324aac1eb9bb368760c"
    assert store.lease("emil", gold_share=0.0) is None
    store.want(fruit.id, 3)
    assert give(store, "emil", gold_share=0.0).task.id == fruit.id
    store.close()


def test_a_migrated_store_has_the_tables_of_a_new_one(file, tmp_path):
    PreferenceStore(f"sqlite:///{file}").close()
    PreferenceStore(f"sqlite:///{tmp_path}/new.db").close()

    def made(path: Path) -> tuple[set, dict]:
        with sqlite3.connect(path) as database:
            things = set(database.execute("SELECT type, name, tbl_name FROM sqlite_master"))
            tables = [name for type, name, _ in things if type == "table"]
            indexes = [name for type, name, _ in things if type == "index"]
            columns = {table: list(database.execute(f"PRAGMA table_info({table})")) for table in tables}
            keys = {index: list(database.execute(f"PRAGMA index_xinfo({index})")) for index in indexes}
            where = {
                name: sql.split("WHERE")[1:]
                for name, sql in database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index'")
                if sql
            }
        return things, {**columns, **keys, **{("where", name): one for name, one in where.items()}}

    assert made(file) == made(tmp_path / "new.db")


@pytest.mark.parametrize("file", [1, 2], indirect=True)
def test_version_3_counts_no_decision_as_a_vote(file):
    with sqlite3.connect(file) as database:
        database.execute("UPDATE annotators SET kind = 'adjudicator' WHERE name IN ('anna', 'judge')")
    store = PreferenceStore(f"sqlite:///{file}", clock=Clock(NOW))
    with sqlite3.connect(file) as database:
        given = dict(database.execute("SELECT id, given FROM tasks"))
    assert [given[task.id] for task in store.tasks().values()] == [
        sum(a.task_id == id and a.annotator not in ("anna", "judge") for a in store.answers()) for id in store.tasks()
    ]
    store.close()


# From version 1 every statement of the later ones is run, too.
@pytest.mark.parametrize("file", [1, *(pytest.param(each, marks=pytest.mark.slow) for each in (2, 3))], indirect=True)
def test_a_kill_before_any_statement_of_a_migration_leaves_the_old_version_and_the_next_opening_migrates(file):
    old, statements = version(file), 0
    while True:
        before = rows(file, "tasks"), rows(file, "leases")
        [code] = finish(start(open_and_die, f"sqlite:///{file}", statements))
        if code == 0:
            break
        assert version(file) == old and (rows(file, "tasks"), rows(file, "leases")) == before
        statements += 1
    assert version(file) == VERSION and statements >= {1: 16, 2: 8, 3: 5}[old]


@pytest.mark.parametrize("file", [1, *(pytest.param(each, marks=pytest.mark.slow) for each in (2, 3))], indirect=True)
def test_processes_that_open_an_old_store_at_once_migrate_it_once(file):
    moment = time.time() + 0.4
    assert finish(*(start(open_at, f"sqlite:///{file}", moment) for _ in range(3))) == [0, 0, 0]
    assert version(file) == VERSION


def test_a_newer_store_is_refused_in_a_sentence_and_stays_as_it_is(tmp_path):
    url = f"sqlite:///{tmp_path}/prefs.db"
    store = PreferenceStore(url)
    with writing(store.engine) as connection:
        connection.execute(update(meta).where(meta.c.key == "version").values(value=VERSION + 1))
    store.close()
    with pytest.raises(UserError, match=f"has version {VERSION + 1} and this hf_align reads up to {VERSION}: upgrade"):
        PreferenceStore(url)
    assert version(tmp_path / "prefs.db") == VERSION + 1


def test_there_is_a_step_to_every_version():
    assert sorted(STEPS) == list(range(2, VERSION + 1))
