import sqlite3
from pathlib import Path

import pytest

from hf_align.errors import UserError
from hf_align.feedback import PreferenceStore, open_store
from hf_align.feedback.store.place import missing_file, url_of


@pytest.mark.parametrize("form", ["{}", "sqlite:///{}", "sqlite+pysqlite:///{}", "sqlite:///file:{}?uri=true"])
def test_a_file_that_is_not_there_is_made_only_on_request_in_whatever_form_it_is_named(tmp_path: Path, form: str):
    file = tmp_path / "prefs.db"
    place = form.format(file)
    with pytest.raises(UserError, match=rf"there is no store {file}; hf-align collect makes one"):
        open_store(place)
    assert missing_file(place) == file and not list(tmp_path.iterdir())
    open_store(place, make=True).close()
    with sqlite3.connect(file) as database:
        assert database.execute("SELECT count(*) FROM tasks").fetchone() == (0,)
    assert missing_file(place) is None
    open_store(place).close()


@pytest.mark.parametrize("place", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_in_memory_is_always_there(place: str):
    assert missing_file(place) is None
    open_store(place).close()


def test_a_file_whose_name_has_characters_of_urls_is_that_file(tmp_path: Path):
    place = tmp_path / "a?b #%41.db"
    open_store(place, make=True).close()
    assert place.is_file() and missing_file(place) is None
    PreferenceStore(url_of(place)).close()


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("no/folder/x.db", "there is no folder"),
        ("foo://x", "not a database URL"),
        ("caf\udce9.db", "bytes in its name that are no text"),
    ],
)
def test_a_place_that_cannot_be_is_refused(place: str, message: str):
    with pytest.raises(UserError, match=message):
        missing_file(place)
