"""Batches of a stream: their rows, for several processes, from a place on; what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset, IterableDataset
from torch.utils.data import IterableDataset as TorchStream

from hf_align.collators import tokenize_preferences
from hf_align.collators.blocks import BlockReader
from hf_align.collators.encoding import PairEncoder
from hf_align.collators.truncation import Limits
from hf_align.errors import UserError
from hf_align.trainers.stream import FIRST_ROWS, RowStream, check_stream_options, first_rows
from tests.tiny import tiny_tokenizer

BLOCK, COUNT = 30, 75
ROWS = [{"prompt": "p", "chosen": f"{number:03}", "rejected": "x", "margin": number} for number in range(COUNT)]


class Torch(TorchStream):
    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(ROWS)


SOURCES: dict[str, Callable[[], Any]] = {
    "shards": lambda: Dataset.from_list(ROWS).to_iterable_dataset(num_shards=3),
    "generator": lambda: IterableDataset.from_generator(lambda: iter(ROWS)),
    "shuffled": lambda: Dataset.from_list(ROWS).to_iterable_dataset(num_shards=3).shuffle(seed=1, buffer_size=20),
    "torch": Torch,
}


def stream(source: Any, size: int = 10, process: int = 0, processes: int = 1) -> RowStream:
    read = first_rows(source)
    first = tokenize_preferences(read[:2], tiny_tokenizer())
    made = RowStream(
        source, first, read, BlockReader(tuple(read[0]), PairEncoder(tiny_tokenizer()), Limits()), block=BLOCK
    )
    made.split(size, process, processes)
    return made


def numbers(batches: Any) -> list[Any]:
    """The rows' numbers, which are their margins."""
    return [batch and [int(row["margin"]) for row in batch] for batch in batches]


def test_batches_are_full_and_go_on_with_the_first_rows(caplog: pytest.LogCaptureFixture):
    given = numbers(islice(stream(SOURCES["generator"]()), 20))
    assert given == [[row % COUNT for row in range(at, at + 10)] for at in range(0, 200, 10)]
    assert [record.message for record in caplog.records if "begins again" in record.message] == [
        "train_dataset: the stream ended after 75 rows, and begins again: further steps train on the same rows."
    ]


def test_each_pass_of_a_shuffled_stream_has_another_order():
    first, second = (given := numbers(islice(stream(SOURCES["shuffled"](), size=COUNT), 2)))
    assert sorted(first) == sorted(second) == list(range(COUNT)) and first != second
    assert given == numbers(islice(stream(SOURCES["shuffled"](), size=COUNT), 2))


def test_processes_take_the_parts_of_the_batches_of_one():
    whole = numbers(islice(stream(SOURCES["shards"](), size=30), 8))
    parts = [numbers(islice(stream(SOURCES["shards"](), 10, process, 3), 8)) for process in range(3)]
    assert whole == [[*a, *b, *c] for a, b, c in zip(*parts, strict=True)]


@pytest.mark.parametrize("kind", SOURCES)
def test_a_resumed_stream_goes_on_with_the_same_batches(kind: str):
    whole = numbers(islice(stream(SOURCES[kind]()), 20))
    for batches in (1, 2, 3, 7, 8, 17):  # in blocks, at the seams of blocks and of passes
        before = stream(SOURCES[kind](), 5, 1, 2)
        for _ in islice(before, batches):
            pass
        state = json.loads(json.dumps(before.state()))
        assert state["rows"] == 10 * batches
        again = stream(SOURCES[kind]())
        for known in (state, None):
            again.resume(known, rows=10 * batches, batches=3)
            assert numbers(islice(again, 3 + 20 - batches)) == [None] * 3 + whole[batches:]
        again.rewind()
        assert numbers(islice(again, 2)) == whole[:2]


def test_a_stream_with_a_state_of_its_own_is_not_read_again():
    read: list[int] = []

    def seen(row: dict[str, Any]) -> dict[str, Any]:
        read.append(row["margin"])
        return row

    source = SOURCES["shards"]().map(seen)
    before = stream(source)
    for _ in islice(before, 4):
        pass
    again = stream(source)
    again.resume(before.state(), rows=40, batches=0)
    read.clear()
    assert numbers(islice(again, 1)) == [list(range(40, 50))]
    assert set(read) == set(range(BLOCK, 2 * BLOCK))


def test_other_rows_than_those_of_the_resumed_run_are_refused():
    before = stream(SOURCES["generator"]())
    for _ in islice(before, 4):
        pass
    others = IterableDataset.from_generator(lambda: (row | {"rejected": "y"} for row in ROWS))
    again = stream(others)
    again.resume(before.state(), rows=40, batches=0)
    with pytest.raises(UserError, match=r"train_dataset has other rows from row 30 on than the run"):
        next(iter(again))


def test_a_stream_that_is_read_up_is_refused():
    rows = iter(ROWS)
    once = IterableDataset.from_generator(lambda: rows)
    with pytest.raises(UserError, match="gives other rows each time it is read"):
        next(iter(stream(once)))


def test_first_rows_are_dicts():
    assert first_rows(IterableDataset.from_generator(lambda: iter(ROWS * 10))) == (ROWS * 10)[:FIRST_ROWS]

    class Texts(TorchStream):
        def __iter__(self) -> Iterator[str]:
            return iter(["a"])

    with pytest.raises(UserError, match="train_dataset: row 0 is a str; give a stream of dicts"):
        first_rows(Texts())
    with pytest.raises(UserError, match="train_dataset has no rows"):
        first_rows(IterableDataset.from_generator(lambda: iter(())))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_steps": -1}, "give max_steps"),
        ({"dataloader_num_workers": 2}, "dataloader_num_workers is 2; leave it out"),
        ({"curriculum": {}}, "curriculum needs all rows"),
        ({"precompute_ref_log_probs": True}, "precompute_ref_log_probs needs all rows"),
        ({"normalize_on": "train"}, "normalize_on='train' needs all rows"),
        ({"length_penalty_on": "train"}, "length_penalty_on='train' needs all rows"),
        ({"normalize_on": "eval", "precompute_ref_log_probs": False}, ""),
    ],
    ids=str,
)
def test_options_that_need_all_rows_are_refused(options: dict[str, Any], said: str):
    args = SimpleNamespace(**{"max_steps": 5, "dataloader_num_workers": 0, **options})
    if not said:
        check_stream_options(args)
        return
    with pytest.raises(UserError, match=f"^train_dataset is a stream, .*{said}"):
        check_stream_options(args)
