"""Scoring runs from files to files."""

import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, DatasetDict

from hf_align import RewardModel, load_reward_model
from hf_align.data.sources import load_named
from hf_align.errors import UserError
from hf_align.evaluation import Sampling
from hf_align.experiments.scoring import best_of_file, score_file

ROWS = [{"day": "2024-01-31", "prompt": "Well?", "response": text} for text in (" yes", " no", " maybe")]


@pytest.fixture
def reward(tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RewardModel:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    RewardModel.from_backbone(tiny_model_dir).save_pretrained("reward")
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return load_reward_model("reward")


class Stop:
    """Progress that stops the run once so much of a task is done."""

    def __init__(self, label: str, after: int) -> None:
        self.label, self.after = label, after

    def line(self, text: str, style: str = "") -> None: ...

    def table(self, *args: Any) -> None: ...

    @contextmanager
    def task(self, label: str, total: int) -> Any:
        def advance(done: int, note: str) -> None:
            if label == self.label and done >= self.after:
                raise KeyboardInterrupt

        yield advance


@pytest.mark.parametrize("out", ["new/scored.jsonl", "scored.parquet", "scored.csv", "scored"])
def test_a_file_is_written_with_its_scores(reward: RewardModel, out: str) -> None:
    figures = score_file("reward", "rows.jsonl", out, column="r")
    assert (figures["rows"], figures["out"], figures["parts_found"]) == (3, out, 0)
    rows = load_named(out, "data", ("train",)).to_list()
    expected = reward.score(["Well?"] * 3, [row["response"] for row in ROWS])
    assert [row["r"] for row in rows] == pytest.approx(expected, abs=1e-5)
    assert [row["response"] for row in rows] == [row["response"] for row in ROWS]
    assert not list(Path().rglob("*.partial"))
    if out.endswith("jsonl"):
        written = [json.loads(line) for line in Path(out).read_text().splitlines()]
        assert [{**row, "r": new["r"]} for row, new in zip(ROWS, written, strict=True)] == written
        assert list(written[0]) == ["day", "prompt", "response", "r"]


def test_part_of_a_split_can_be_scored_and_what_exists_is_replaced_only_if_asked_for(reward: RewardModel) -> None:
    DatasetDict({name: Dataset.from_list(ROWS[:count]) for name, count in (("train", 1), ("test", 3))}).save_to_disk(
        "data"
    )
    assert score_file("reward", "data", "out.parquet")["rows"] == 1
    with pytest.raises(UserError, match=r"^OUT: out\.parquet exists"):
        score_file("reward", "data", "out.parquet", split="test", limit=2)
    assert score_file("reward", "data", "out.parquet", split="test", limit=2, overwrite=True)["rows"] == 2
    assert score_file("reward", "out.parquet", "out.parquet", column="again", overwrite=True)["rows"] == 2
    assert len(load_named("out.parquet", "data", ("train",))["again"]) == 2, "a file may replace itself"
    with pytest.raises(UserError, match="data has no split best"):
        score_file("reward", "data", "new.parquet", split="best")
    with pytest.raises(UserError, match=r"^limit is 0"):
        score_file("reward", "data", "new.parquet", limit=0)
    Path("lists.jsonl").write_text('{"prompt": "a", "responses": ["b", "c"]}\n')
    with pytest.raises(UserError, match=r"a \.csv file can't hold the lists in responses, scores;"):
        score_file("reward", "lists.jsonl", "out.csv")


def test_a_stopped_run_goes_on_and_writes_the_same_bytes(reward: RewardModel, tiny_model_dir: str) -> None:
    Path("prompts.jsonl").write_text("".join(json.dumps({"prompt": f"{n}?", "id": n}) + "\n" for n in range(6)))
    sampling = Sampling(n=4, max_new_tokens=4, batch_size=8)

    def run(out: str, **settings: Any) -> Any:
        return best_of_file(tiny_model_dir, "reward", "prompts.jsonl", out, sampling, keep="pairs", **settings)

    whole = run("whole.jsonl")
    for label, after in (("sampling", 4), ("scoring", 1)):
        with pytest.raises(KeyboardInterrupt):
            run("resumed.jsonl", progress=Stop(label, after))
        assert not Path("resumed.jsonl").exists()
    assert len(os.listdir("resumed.jsonl.partial")) == 3, "three blocks of two prompts"
    resumed = run("resumed.jsonl")
    assert resumed["parts_found"] == 3 and not Path("resumed.jsonl.partial").exists()
    assert Path("resumed.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    different = {"out", "seconds", "parts_found"}
    assert {k: v for k, v in whole.items() if k not in different} == {
        k: v for k, v in resumed.items() if k not in different
    }
