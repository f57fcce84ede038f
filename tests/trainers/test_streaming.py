"""Reward models and policies trained on a stream: the same weights as on a data set, also after a resume."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, IterableDataset
from torch.utils.data import IterableDataset as TorchStream

from hf_align.errors import UserError
from hf_align.trainers.dpo import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from hf_align.trainers.stream import FIRST_ROWS
from tests.tiny import tiny_tokenizer
from tests.trainers.pairs import options, text_pairs

KINDS: dict[str, Any] = {"reward": (RewardTrainer, RewardConfig), "dpo": (DPOTrainer, DPOConfig)}
SHAPE = {"max_steps": 3, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 1, "row_tokens": 256}
VOTES = [[1, 0], [1], [0.5, 1], [0, 1], [1, 1], [0], [1], [0.5]]


def train(kind: str, model: str, data: Any, out: Path, resume: str | None = None, **changes: Any) -> Any:
    trainer, config = KINDS[kind]
    args = config(**options(out, **{**SHAPE, "train_sampling_strategy": "sequential", **changes}))
    made = trainer(model, args=args, train_dataset=data, eval_dataset=text_pairs(2, margin=kind == "reward"))
    made.train(resume_from_checkpoint=resume)
    return made


def weights(trainer: Any) -> list[torch.Tensor]:
    return [weight.detach() for weight in trainer.model.parameters()]


def rows(kind: str) -> Dataset:
    data = text_pairs(8, margin=kind == "reward")
    return data.add_column("votes", VOTES) if kind == "reward" else data


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_trains_the_weights_of_the_data_set(kind: str, tiny_model_dir: str, tmp_path: Path):
    changes: Any = {"label_mode": "draw"} if kind == "reward" else {}
    data = rows(kind)
    whole = train(kind, tiny_model_dir, data, tmp_path / "whole", **changes)
    streamed = train(kind, tiny_model_dir, data.to_iterable_dataset(num_shards=2), tmp_path / "stream", **changes)
    assert all(map(torch.equal, weights(whole), weights(streamed)))
    drop = ("epoch", "runtime", "per_second")
    for ours, theirs in zip(streamed.state.log_history, whole.state.log_history, strict=True):
        assert {name: value for name, value in ours.items() if not any(word in name for word in drop)} == {
            name: value for name, value in theirs.items() if not any(word in name for word in drop)
        }
    assert streamed.evaluate()["eval_loss"] == whole.evaluate()["eval_loss"]
    streamed.save_model()  # card and record say that it was a stream
    card = (tmp_path / "stream" / "README.md").read_text()
    assert "| Rows | a stream; figures of its first 8 |" in card and "Epochs" not in card
    assert streamed._data["train"] | {"fingerprint": ""} == {"rows": None, "first_rows": 8, "fingerprint": ""}


@pytest.mark.parametrize(("kind", "shuffled"), [("reward", True), ("dpo", False)])
def test_a_resumed_run_ends_with_the_same_weights(kind: str, shuffled: bool, tiny_model_dir: str, tmp_path: Path):
    changes = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch", "learning_rate": 0.01}

    def stream() -> IterableDataset:
        given = rows(kind).to_iterable_dataset(num_shards=2)
        return given.shuffle(seed=3, buffer_size=3) if shuffled else given

    whole = train(kind, tiny_model_dir, stream(), tmp_path, **changes)  # 12 of 8 rows: the seam is behind a checkpoint
    again = train(kind, tiny_model_dir, stream(), tmp_path, resume=str(tmp_path / "checkpoint-2"), **changes)
    assert all(map(torch.equal, weights(whole), weights(again)))


class Torch(TorchStream):
    def __init__(self, rows: Dataset) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows.to_list())


@pytest.mark.parametrize("kind", ["torch", "datasets"])
def test_another_stream_at_resume_is_named(
    kind: str, tiny_model_dir: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    def stream(rows: Dataset) -> Any:
        return Torch(rows) if kind == "torch" else rows.to_iterable_dataset()

    data = text_pairs(8)
    saving = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    train("dpo", tiny_model_dir, stream(data), tmp_path, **saving)
    others, saving = data.select([0, 1, 2, 3, 4, 5, 7, 6]), {**saving, "max_steps": 2, "save_strategy": "no"}
    with pytest.raises(UserError, match="checkpoint-1 was trained with other rows in train_dataset; give the same"):
        train("dpo", tiny_model_dir, stream(others), tmp_path, resume=str(tmp_path / "checkpoint-1"), **saving)
    train(
        "dpo",
        tiny_model_dir,
        stream(others),
        tmp_path,
        resume=str(tmp_path / "checkpoint-1"),
        resume_with_changes=True,
        **saving,
    )
    assert "checkpoint-1, which was trained with other rows in train_dataset" in caplog.text


def in_layout(name: str, data: Dataset) -> list[dict[str, Any]]:
    """The pairs in another layout, with a row that makes none between them."""
    rows: Any = data.to_list()
    if name == "pku":
        made = [
            {"prompt": r["prompt"], "response_0": r["rejected"], "response_1": r["chosen"], "better_response_id": 1}
            for r in rows
        ]
        return [*made[:3], {**made[3], "better_response_id": None}, *made[3:]]
    both = [{"prompt": r["prompt"], "responses": [r["rejected"], r["chosen"]], "scores": [1.0, 3.0]} for r in rows]
    more = {"prompt": "p", "responses": ["a", "b", "c"], "scores": [3.0, 1.0, 2.0]}
    return [*both[:3], more, {**more, "scores": [1.0, 1.0, 1.2]}, *both[3:]]


@pytest.mark.parametrize("name", ["pku", "rankings"])
def test_rows_of_other_layouts_are_converted_as_those_of_a_data_set(
    name: str, tiny_model_dir: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    rows = in_layout(name, text_pairs(8))
    changes = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}
    whole = train("dpo", tiny_model_dir, rows, tmp_path / "whole", **{**changes, "save_strategy": "no"})
    caplog.clear()

    def stream() -> IterableDataset:
        return IterableDataset.from_generator(lambda: iter(rows))

    out = tmp_path / "out"
    streamed = train("dpo", tiny_model_dir, stream(), out, **changes)
    assert all(map(torch.equal, weights(whole), weights(streamed)))
    assert "; rows are converted as they come." in caplog.text
    assert caplog.text.count("row 3 is left out, having") == (name == "pku")
    again = train("dpo", tiny_model_dir, stream(), out, resume=str(out / "checkpoint-2"), **changes)
    assert all(map(torch.equal, weights(streamed), weights(again)))


def test_pairs_of_several_rows_are_no_stream(tmp_path: Path):
    rows = [{"prompt": "p", "completion": text, "label": label} for text, label in (("a", True), ("b", False))]
    stream: Any = IterableDataset.from_generator(lambda: iter(rows))
    with pytest.raises(UserError, match=r"train_dataset is a stream, and of its layout, .* made of several rows"):
        DPOTrainer(
            "no/model",
            args=DPOConfig(**options(tmp_path)),
            train_dataset=stream,
            processing_class=tiny_tokenizer(),
        )


def test_a_bad_row_stops_the_run_where_it_comes(tiny_model_dir: str, tmp_path: Path):
    def made() -> Any:
        for number in range(FIRST_ROWS + 20):
            yield {"prompt": "p", "chosen": "" if number == FIRST_ROWS + 9 else f"{number}", "rejected": "x"}

    shape = {"per_device_train_batch_size": 64, "gradient_accumulation_steps": 4, "row_tokens": None}
    with pytest.raises(UserError, match=r"^train_dataset: 1 row has an empty chosen \(row 521\); fix or drop them"):
        train(
            "dpo", tiny_model_dir, IterableDataset.from_generator(made), tmp_path,
            max_steps=9, save_strategy="steps", save_steps=2, **shape,
        )  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "run.sqlite"]


def test_later_rows_must_fit_the_model(tiny_model_dir: str, tmp_path: Path):
    args = DPOConfig(**options(tmp_path, max_length=None))
    trainer: Any = DPOTrainer(tiny_model_dir, args=args, train_dataset=text_pairs(2).to_iterable_dataset())
    room = trainer.model.model.config.max_position_embeddings
    row = {"prompt_ids": [1] * room, "response_ids": [[2], [3]]}
    with pytest.raises(UserError, match=f"row 700 has {room + 1} tokens, more than the {room} positions"):
        trainer.check_later_rows([row], [700])
    trainer.processing_class.add_tokens(["<new>"])
    row = {"prompt_ids": [1], "response_ids": [[2], [260]]}
    with pytest.raises(UserError, match="row 700 has the token '<new>'"):
        trainer.check_later_rows([row], [700])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"max_steps": -1}, "whose number of rows isn't known; give max_steps"),
        ({"dataloader_num_workers": 2}, "which the training process reads itself, and dataloader_num_workers is 2; le"),
    ],
)
def test_refused_before_anything_is_loaded(changes: dict[str, Any], reason: str, tmp_path: Path):
    stream = text_pairs(2).to_iterable_dataset()
    with pytest.raises(UserError, match=f"^train_dataset is a stream, {reason}"):
        DPOTrainer("no/model", args=DPOConfig(**options(tmp_path, **changes)), train_dataset=stream)


def test_evaluation_rows_are_no_stream(tiny_model_dir: str, tmp_path: Path):
    stream: Any = text_pairs(2).to_iterable_dataset()
    with pytest.raises(UserError, match=r"eval_dataset must be .*, not IterableDataset"):
        IPOTrainer(
            tiny_model_dir, args=IPOConfig(**options(tmp_path)), train_dataset=text_pairs(2), eval_dataset=stream
        )
