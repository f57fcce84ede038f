"""Data sets of every form become one whose rows are fetched by number; a stream is read once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from hf_align.data.inspection.stored import PART, Pages, stored
from hf_align.errors import UserError

ROWS: list[dict[str, Any]] = [{"prompt": "p", "chosen": f"a {n}", "rejected": "b"} for n in range(3)]


@pytest.mark.parametrize("form", ["list", "data set", "stream", "one split", "one streamed split"])
def test_every_form_gives_the_same_rows(form: str, tmp_path: Path) -> None:
    data = Dataset.from_list(ROWS)
    given: dict[str, Any] = {
        "list": ROWS,
        "data set": data.with_format("numpy"),
        "stream": data.to_iterable_dataset(),
        "one split": DatasetDict({"train": data}),
        "one streamed split": IterableDatasetDict({"train": data.to_iterable_dataset()}),
    }
    rows = stored(given[form], "dataset", tmp_path, Pages())
    assert rows.to_list() == ROWS and rows[1:2]["chosen"] == ["a 1"]


def test_a_stream_is_read_once_and_may_have_columns_that_are_empty_at_first(tmp_path: Path) -> None:
    reads = []

    def rows() -> Iterator[dict[str, Any]]:
        reads.append(1)
        for n in range(PART + 2):
            yield {"prompt": "p", "chosen": f"a {n}", "rejected": "b"} | (
                {"margin": None, "n": n} if n < PART else {"margin": 0.5, "n": n + 0.5, "late": ["x"]}
            )

    pages = Pages()
    data = stored(IterableDataset.from_generator(rows), "dataset", tmp_path, pages)
    assert len(reads) == 1 and len(data) == PART + 2
    pages.release()  # reads them again
    assert data[0] == {"prompt": "p", "chosen": "a 0", "rejected": "b", "margin": None, "n": 0.0, "late": None}
    assert data[PART + 1]["margin"] == 0.5 and data[PART + 1]["late"] == ["x"]


def test_what_cannot_be_read_is_refused_with_a_sentence(tmp_path: Path) -> None:
    data = Dataset.from_list(ROWS)
    several = DatasetDict({"train": data, "test": data})
    with pytest.raises(UserError, match=r"dataset has the splits train, test: pass one .* dataset\['train'\]"):
        stored(several, "dataset", tmp_path, Pages())
    with pytest.raises(UserError, match="dataset has no split"):
        stored(DatasetDict(), "dataset", tmp_path, Pages())
    with pytest.raises(UserError, match=r"must be a datasets\.Dataset or a list of dicts, not str"):
        stored("rows", "dataset", tmp_path, Pages())
    with pytest.raises(UserError, match="dataset has no rows"):
        stored(IterableDataset.from_generator(lambda: iter([])), "dataset", tmp_path, Pages())

    def mixed() -> Iterator[dict[str, Any]]:
        yield from ({"prompt": "p", "chosen": "a" if n else [{"role": "user", "content": "a"}]} for n in range(3))

    with pytest.raises(UserError, match="rows 0 to 2 have a column with values of several types"):
        stored(IterableDataset.from_generator(mixed), "dataset", tmp_path, Pages())

    def turning() -> Iterator[dict[str, Any]]:
        yield from ({"prompt": "p", "chosen": "a" if n < PART else 1.5} for n in range(PART + 1))

    with pytest.raises(UserError, match="one type in each column throughout"):
        stored(IterableDataset.from_generator(turning), "dataset", tmp_path, Pages())
