import sqlite3
import threading
import time

import pytest

from hf_align.errors import UserError
from hf_align.feedback import PreferenceStore

from .stores import fill, finish, open_at, start


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("prefs.db", "store 'prefs.db' is not a database URL, such as sqlite:///prefs.db"),
        ("nosuch://me:secret@host/db", r"store 'nosuch://\*\*\*@host/db' is not a database URL"),
        ("sqlite:///{folder}/gone/prefs.db", "there is no folder .*gone; make it first"),
        ("sqlite:///{folder}", "the file can't be opened; check its folder"),
    ],
)
def test_a_place_without_a_database_is_named_with_the_fix_and_no_password(tmp_path, url, message):
    with pytest.raises(UserError, match=message):
        PreferenceStore(url.format(folder=tmp_path))


def test_a_file_that_is_no_database_is_refused_and_stays_as_it_is(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("These are notes, and long enough to have a header.\n" * 20)
    before = file.read_bytes()
    with pytest.raises(UserError, match="the file is no SQLite database; give another name"):
        PreferenceStore(f"sqlite:///{file}")
    assert file.read_bytes() == before


@pytest.mark.parametrize("table", ["history (page TEXT)", "meta (page TEXT)", "meta (key TEXT, value TEXT)"])
def test_another_programs_database_is_refused_and_stays_as_it_is(tmp_path, table):
    file = tmp_path / "other.db"
    other = sqlite3.connect(file)
    other.execute(f"CREATE TABLE {table}")
    other.close()
    before = file.read_bytes()
    with pytest.raises(UserError, match=r"another program.*; give another database"):
        PreferenceStore(f"sqlite:///{file}")
    assert file.read_bytes() == before


def test_a_store_that_may_only_be_read_is_read_and_says_that_it_cannot_be_written(tmp_path):
    writable = PreferenceStore(f"sqlite:///{tmp_path}/prefs.db")
    fill(writable)
    store = PreferenceStore(f"sqlite:///file:{tmp_path}/prefs.db?mode=ro&uri=true")
    assert len(store.tasks()) == 1 and store.progress("anna").left == 1
    with pytest.raises(UserError, match="it can't be written; check who may write the file"):
        store.lease("anna")
    store.close()
    writable.close()


def test_a_store_that_another_process_holds_for_too_long_says_so(tmp_path):
    store = PreferenceStore(f"sqlite:///{tmp_path}/prefs.db?timeout=0.05")
    fill(store)
    other = sqlite3.connect(tmp_path / "prefs.db")
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UserError, match="another process has held it for too long; try again"):
        store.lease("anna")
    assert len(store.tasks()) == 1  # readers go on
    other.rollback()
    assert store.lease("anna") is not None
    other.close()
    store.close()


@pytest.mark.parametrize("memory", [True, False])
def test_threads_lose_nothing_and_stay_within_what_is_wanted(tmp_path, memory):
    store = PreferenceStore("sqlite://" if memory else f"sqlite:///{tmp_path}/prefs.db")
    fill(store, 5, wanted=2)
    failed: list[BaseException] = []

    def work(name: str) -> None:
        try:
            while (lease := store.lease(name)) is not None:
                store.answer(lease.id, 1.0, id=lease.id)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(f"person {number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answers = list(store.answers())
    assert not failed
    assert len(answers) == len({(a.task_id, a.annotator) for a in answers}) == 10
    store.close()


def test_processes_that_open_a_new_store_at_once_make_it_once(tmp_path):
    url = f"sqlite:///{tmp_path}/prefs.db"
    moment = time.time() + 0.5
    assert finish(*(start(open_at, url, moment) for _ in range(4))) == [0, 0, 0, 0]
    assert PreferenceStore(url).tasks() == {}
