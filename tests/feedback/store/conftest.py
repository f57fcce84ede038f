"""The store of the tests: in memory, or in the database that HF_ALIGN_TEST_DATABASE names (it is emptied)."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text

from hf_align.feedback import PreferenceStore

from .stores import Clock


@pytest.fixture
def store() -> Iterator[PreferenceStore]:
    url = os.environ.get("HF_ALIGN_TEST_DATABASE", "sqlite://")
    if url.startswith("postgresql"):
        engine = create_engine(url)
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
        engine.dispose()
    store = PreferenceStore(url, clock=Clock())
    yield store
    store.close()
