"""Facts collected from real trainers on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets import Dataset, DatasetInfo
from peft import LoraConfig

from hf_align.model_cards.collect import collect_facts
from hf_align.model_cards.data import data_statistics, dataset_ids, labels_of, read_columns
from hf_align.model_cards.names import hub_id
from hf_align.statistics import wilson_interval
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from tests.cards import card_data
from tests.tiny import save_tiny
from tests.trainers.pairs import options, pairs


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("anna-secret") / "local-base")


def test_a_trainer_s_facts(base: str, tmp_path: Path):
    args = RewardConfig(
        **options(tmp_path / "out", max_steps=2, gradient_accumulation_steps=2, hub_token="hf_secret", run_name="anna")
    )
    trainer = RewardTrainer(
        base,
        args=args,
        train_dataset=pairs(8, margin=True),
        eval_dataset=pairs(4),
        peft_config=LoraConfig(r=2, target_modules="all-linear"),
        quantization_config="4bit",
    )
    trainer.train()
    metrics = trainer.evaluate()
    facts = collect_facts(trainer, tags=["tiny"], evaluation={"win rate": 0.5})
    assert (facts.kind, facts.name, facts.library, facts.quantization) == ("reward", "out", "peft", "4bit")
    assert (facts.base_model, facts.conversational, facts.is_plain) == (None, True, True)
    assert facts.base_description.startswith("a Llama model with 0.02")  # 4-bit weights count in full
    assert facts.adapter is not None and facts.adapter["r"] == 2 and "q_proj" in facts.adapter["target_modules"]
    assert facts.hyperparameters["learning_rate"] == 0.1 and facts.hyperparameters["margin_mode"] == "weight"
    assert facts.run["Steps"] == 2 and facts.run["Rows a step"] == 4 and "CPU" in facts.run["Hardware"]
    assert facts.run["Acceleration"] == trainer.describe_acceleration()
    assert "gated_mlp 2 layers" in facts.run["Acceleration"] and "acceleration" not in facts.hyperparameters
    assert facts.data["Rows"] == 8 and facts.data["Margin"] == "mean 1.69, from 0.5 to 3"
    values = {row.metric: row for row in facts.evaluation}
    assert values["accuracy"].value == metrics["eval_accuracy"] and values["accuracy"].rows == 4
    assert values["accuracy"].interval == wilson_interval(metrics["eval_accuracy"], 4)
    assert values["loss"].interval is None and values["win rate"].value == 0.5
    assert not {"runtime", "samples_per_second", "epoch"} & set(values)
    for secret in ("hf_secret", "anna", "local-base", str(tmp_path)):
        assert secret not in json.dumps(facts.to_dict()), secret


def test_facts_of_a_model_trained_on_rankings(base: str, tmp_path: Path):
    rows: Any = [
        {"prompt": "a", "responses": ["b", "c", "d"], "ranking": [0, 0, None], "liked": [1, None, 0]},
        {"prompt": "a", "responses": ["b", "c"], "ranking": [1, 0], "liked": [1, 0]},
    ]
    args = RewardConfig(**options(tmp_path / "out", loss_type="plackett_luce", tasks={"liked": "binary"}))
    trainer = RewardTrainer(base, args=args, train_dataset=rows, eval_dataset=rows)
    trainer.evaluate()
    facts = collect_facts(trainer)
    assert facts.rankings and facts.labels == "hard" and facts.outputs == {"liked": "binary"} and facts.brings_code
    assert facts.data["Responses of a prompt"] == "2 to 3" and facts.data["Responses that share a rank"] == "2 of 5"
    assert facts.data["Responses below all ranked ones"] == "1 of 5" and "Tokens of a response" in facts.data
    values = {row.metric: row for row in facts.evaluation}
    assert "liked/loss" in values
    for share in ("accuracy", "liked/accuracy"):  # of pairs, of labels: not of the two rows
        assert values[share].interval is None


@pytest.mark.parametrize(
    ("columns", "changes", "expected"),
    [
        ({"margin"}, {}, "hard"),
        ({"label"}, {"label_mode": "draw"}, "soft"),
        ({"label", "votes"}, {}, "soft"),
        ({"label", "votes"}, {"label_mode": "draw"}, "drawn"),
        ({"ranks", "scores"}, {}, "hard"),
        ({"ranks", "scores", "ratings"}, {}, "soft"),
        ({"ranks", "scores", "ratings"}, {"loss_type": "plackett_luce"}, "hard"),
        ({"ranks", "scores", "ratings"}, {"loss_type": "plackett_luce", "label_mode": "draw"}, "drawn"),
    ],
)
def test_labels_are_what_the_loss_took(columns: set[str], changes: dict[str, Any], expected: str):
    args = SimpleNamespace(**{"loss_type": "bradley_terry", "label_mode": "share"} | changes)
    assert labels_of(args, columns) == expected


def test_a_saved_model_has_our_card_and_no_other(base: str, tmp_path: Path):
    trainer = DPOTrainer(
        base,
        args=DPOConfig(**options(tmp_path / "out", save_strategy="steps", save_steps=1, max_steps=2)),
        train_dataset=pairs(4),
        eval_dataset={"films": pairs(2), "phones": pairs(3)},
        peft_config=LoraConfig(r=2, target_modules="all-linear"),
    )
    trainer.train()
    trainer.evaluate()
    trainer.save_model()
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "hf-align" in card_data(text).tags and "local-base" not in text
    assert "held-out rows: films" in text and (tmp_path / "out" / "training_curves.png").exists()
    assert not (tmp_path / "out" / "checkpoint-2" / "README.md").exists()
    rows = {(row.dataset, row.metric): row.rows for row in collect_facts(trainer).evaluation}
    assert rows["held-out rows: phones", "loss"] == 3 and rows["held-out rows: films", "rewards/accuracies"] == 2

    trainer.create_model_card(license="mit", dataset="films and phones")
    trainer.save_model(str(tmp_path / "elsewhere"))
    assert "\n# elsewhere\n" in (tmp_path / "elsewhere" / "README.md").read_text(encoding="utf-8")
    trainer.save_model()  # remembers what the card was made with
    text = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card_data(text).license == "mit" and "films and phones" in text


def test_lengths_are_those_of_the_rows_that_are_used():
    rows = Dataset.from_dict({"prompt_ids": [[1], [1, 2, 3], [1] * 9, [1] * 100], "margin": [1.0, 2.0, 3.0, 50.0]})
    assert data_statistics(rows.select([0, 1, 2])) == {
        "Rows": 3,
        "Tokens of a prompt": "median 3, 95% below 8, at most 9",
        "Margin": "mean 2, from 1 to 3",
    }
    picked = data_statistics(rows.select([3, 0]))
    assert picked["Tokens of a prompt"] == "median 50, 95% below 95, at most 100"
    assert data_statistics(None) == {}


def test_what_prompts_have_besides_is_the_reward_s():
    rows = Dataset.from_dict(
        {"prompt_ids": [[1], [1, 2]], "scores": ["[", "x"], "label": ["a", None], "ranks": [{}, {}]}
    )
    for kind in ("ppo", "online"):
        read = read_columns(rows, SimpleNamespace(checkpoint_kind=kind))
        assert data_statistics(read) == {"Rows": 2, "Tokens of a prompt": "median 2, 95% below 2, at most 2"}
    for data in (rows, None, [1]):
        assert read_columns(data, SimpleNamespace(checkpoint_kind="reward")) is data
    assert read_columns(None, SimpleNamespace(checkpoint_kind="ppo")) is None


def test_a_data_set_from_the_hub_is_known_by_its_id():
    sums: dict[str, Any] = {"hf://datasets/org/pairs@0123/data/train.parquet": {}, "https://x.org/y": {}}
    rows = Dataset.from_dict({"a": [1]}, info=DatasetInfo(download_checksums=sums))
    assert dataset_ids(rows) == ["org/pairs"]
    assert dataset_ids(Dataset.from_dict({"a": [1]})) == []


def test_which_names_are_the_hub_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "base").mkdir()
    assert hub_id("org/name") == "org/name" and hub_id("gpt2") == "gpt2"
    for local in ("out/base", str(tmp_path), "/nowhere/at/all", "../x", "a/b/c", "", None):
        assert hub_id(local) is None, local
    assert hub_id("/home/x/hub/models--org--name/snapshots/0123/") == "org/name"
