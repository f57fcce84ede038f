"""Rows of a data set: flips, held-out prompts, draws by seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hf_align.errors import UserError
from hf_align.experiments.benchmark.data import TrainingData, draw, flip_labels, read_data
from tests.experiments.benchmark.grids import write_inputs

PAIRS = Dataset.from_list(
    [{"prompt": f"p{n}", "chosen": f"good {n}", "rejected": f"bad {n}", "margin": float(n)} for n in range(20)]
)
HELD_OUT = Dataset.from_list([{"prompt": "p3 "}, {"prompt": "other"}])


@pytest.fixture(autouse=True)
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_inputs()


def read(**values) -> TrainingData:
    given = {"pairs": "pairs.jsonl", "prompts": None, "limit": None, "flip": 0.0, "held_out": HELD_OUT, "probed": None}
    return read_data(**{**given, **values}, place="datasets.clean")


def test_a_flip_exchanges_the_responses_and_leaves_the_judgement():
    flipped, numbers = flip_labels(PAIRS, 0.25)
    assert len(numbers) == 5
    assert numbers == flip_labels(PAIRS, 0.25)[1]
    rows: Any = zip(PAIRS, flipped, strict=True)
    for number, (before, after) in enumerate(rows):
        sides = ("rejected", "chosen") if number in numbers else ("chosen", "rejected")
        assert (after["chosen"], after["rejected"]) == tuple(before[side] for side in sides)
        assert (after["prompt"], after["margin"]) == (before["prompt"], before["margin"])
    assert flip_labels(PAIRS, 0.0) == (PAIRS, ())


def test_a_run_draws_by_its_seed_and_again_where_rows_are_few():
    first, again, other = (draw(PAIRS, 12, seed)["prompt"][:] for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 12
    twice = draw(PAIRS, 40, 0)["prompt"][:]
    assert sorted(twice[:20]) == sorted(twice[20:]) == sorted(PAIRS["prompt"][:])
    assert twice[:12] == first
    parts = [*draw(PAIRS, 8, 0)["prompt"], *draw(PAIRS, 8, 0, start=8)["prompt"]]  # of two stages
    assert parts == twice[:16]


def test_held_out_prompts_are_left_out_and_prompts_are_different():
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("a", "b", "a", "other")))
    data = read(prompts="prompts.jsonl")
    assert data.pairs is not None and data.prompts is not None
    assert "p3 " not in data.pairs["prompt"][:] and len(data.pairs) == 19
    assert data.prompts["prompt"][:] == ["a", "b"]
    assert data.left_out == 2
    own = read().prompts
    assert own is not None and own["prompt"][:] == data.pairs["prompt"][:]


def test_prompts_for_the_kl_are_in_no_other_rows():
    data = read(probed=4)
    assert data.pairs is not None and data.prompts is not None and data.probed is not None
    probed = data.probed["prompt"][:]
    assert len(probed) == 4
    assert not set(probed) & {*data.pairs["prompt"], *data.prompts["prompt"]}
    assert len(data.pairs) == 15
    with pytest.raises(UserError, match=r"datasets\.clean has 19 different prompts, and the KL is measured on 19"):
        read(probed=19)


def test_demonstrations_are_the_chosen_responses():
    data = read(flip=0.5, limit=4)
    rows = data.rows_for("demonstrations")
    assert rows is not None and data.pairs is not None and rows["completion"][:] == data.pairs["chosen"][:]
    assert [data.pairs["chosen"][number] for number in data.flipped] == ["12"] * len(data.flipped) != []


def test_stored_rows_come_back_and_are_replaced_by_others(tmp_path: Path):
    data, other = read(flip=0.25), read()
    for each in (data, data, other, read(probed=2), other):
        each.save(tmp_path / "rows")
        assert TrainingData.load(tmp_path / "rows").digests == each.digests
    assert data.digests != other.digests


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pairs": None}, "datasets.clean has neither pairs nor prompts"),
        (
            {"pairs": "held_out.jsonl"},
            r"datasets.clean.pairs: the data set has none of the known layouts; it has prompt \(text\)",
        ),
        ({"pairs": "none.jsonl"}, "datasets.clean.pairs: there is no file none.jsonl"),
        ({"held_out": PAIRS.map(lambda row: {"prompt": row["prompt"] + " "})}, "no pairs are left beside the held-out"),
    ],
)
def test_unusable_rows_are_refused(values: dict, message: str):
    with pytest.raises(UserError, match=message):
        read(**values)
