from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from hf_align.algorithms import ALGORITHMS
from hf_align.data.fingerprint import fingerprints_of
from hf_align.errors import UserError
from hf_align.planning import Resources, select_algorithm
from hf_align.planning.selection.candidates import Candidate, candidates
from hf_align.planning.selection.estimates import Estimate, estimator, operations
from hf_align.planning.selection.features import Features, data_features, kind_of_rows
from hf_align.planning.selection.provenance import reward_warnings
from hf_align.planning.selection.rules import DEFAULT, read_rules
from hf_align.planning.selection.select import WEIGHTS, features_of, recommend
from hf_align.planning.selection.settings import hyperparameters
from hf_align.tracking import RunRecord
from tests.tiny import tiny_config

ROWS = [
    {
        "prompt": f"Film {number % 10} was",
        "chosen": f" a joy to watch {number}.",
        "rejected": f" too long {number}.",
        "votes": [1] * 9 + [0],
        "margin": 0.1 * (number % 5),
    }
    for number in range(40)
]


def test_features_of_pairs_by_hand():
    features = data_features(ROWS, None)
    assert (features["kind"], features["rows"], features["pairs"]) == ("pairs", 40, 40)
    agreeing = (9 * 8) / (10 * 9)  # ordered pairs of ten votes that are the same
    assert features["agreement"] == pytest.approx(agreeing)
    assert features["noise"] == pytest.approx((1 - (2 * agreeing - 1) ** 0.5) / 2)
    assert features["margin_mean"] == pytest.approx(0.2)
    assert features["margin_variance"] == pytest.approx(0.02)
    assert features["clear_share"] == pytest.approx(0.6)
    assert features["prompt_diversity"] == pytest.approx(0.25)
    assert features["longer_better"] == 1.0
    assert features["prompt_tokens"] == pytest.approx(1.5 * 3)
    assert features["response_tokens"] == pytest.approx(1.5 * (5 + 3) / 2)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "pairs"),
        ({"prompt": "a", "completion": "b"}, "demonstrations"),
        ({"messages": [{"role": "user", "content": "a"}]}, "demonstrations"),
        ({"prompt": "a"}, "prompts"),
        ({"prompt": "a", "responses": ["b", "c"], "ranking": [0, 1]}, "pairs"),
        ({"prompt": "a", "prompt_id": "1", "messages": [{"role": "user", "content": "a"}]}, "demonstrations"),
        ({"instruction": "a", "input": "", "output": "b"}, "demonstrations"),
        ({"prompt": "a", "response": "b", "rating": 4.0}, "pairs"),
        ({"prompt": "a", "id": 1, "source": "web"}, "prompts"),
        ({"id": 1, "title": "a"}, "pairs"),
    ],
)
def test_kinds_of_rows(row: dict, kind: str):
    assert kind_of_rows(Dataset.from_list([row])) == kind


def test_lengths_of_demonstrations_are_those_of_prompt_and_answer():
    turns = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A film about trains."}]
    rows = [{"messages": turns, "id": 1}, {"messages": turns[:1], "id": 2}]
    features = data_features(rows, None)
    assert (features["longest_prompt"], features["longest_response"]) == (5, 6)  # 1.5 a word, upwards
    assert features["completeness"] == 0.5 and features["prompt_diversity"] == 1.0
    with pytest.raises(UserError, match="no row can be read"):
        data_features(rows[1:], None)


def test_unknown_features_stay_unknown():
    features = data_features([{"prompt": "What is it?"}, {"prompt": "Who?"}], None)
    assert (features["agreement"], features["noise"], features["longest_prompt"]) == (None, None, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": "24 apples"}, "not an amount of memory"),
        ({"hours": -1}, "hours is -1"),
        ({"budget": 10}, "budget and price"),
    ],
)
def test_wrong_resources_are_refused(options: dict, message: str):
    with pytest.raises(UserError, match=message):
        Resources(**options)


def test_hours_are_the_least_of_time_and_money():
    assert Resources("24GB", gpus=2, budget=12, price=1.5, hours=9).hours_allowed == 4.0
    assert Resources("24GB", gpus=2, speed=30).operations_per_second == 6e13
    assert Resources("24GB").device.memory == 24 * 2**30


@pytest.fixture(scope="module")
def choice(tiny_model_dir: str):
    """A choice for the tiny model, by a memory that isn't planned, which takes seconds."""

    def estimate(candidate: Candidate, features: Features) -> Estimate:
        return Estimate(2.0**30, operations(candidate, features), {"lora": True})

    features = features_of(Dataset.from_list(ROWS), tiny_model_dir, Resources("24GB", hours=1), ("fast",), None)
    return recommend(features, read_rules(DEFAULT), WEIGHTS, estimate, [])


def test_the_tiny_model_is_counted(choice):
    features = choice.features
    assert features.architecture == "LlamaForCausalLM"
    assert features.chat is True
    tokens = 40 * (features.prompt_tokens + 2 * features.response_tokens)
    assert choice.estimates["dpo"].operations == pytest.approx(8 * features.parameters * tokens)


def test_a_config_alone_has_no_tokenizer(tmp_path: Path):
    config = tiny_config(architectures=["LlamaForCausalLM"])
    config.save_pretrained(tmp_path)
    features = features_of(Dataset.from_list(ROWS), str(tmp_path), Resources("24GB"), (), None)
    assert features.chat is None
    assert features.prompt_tokens == pytest.approx(1.5 * 3)


@pytest.mark.slow
def test_memory_is_planned(choice, tiny_model_dir: str):
    """The page's example plans in the fast tests, too."""
    estimate = estimator(tiny_model_dir, Resources("24GB").device)
    found: dict[str, Any] = {each.name: estimate(each, choice.features) for each in candidates()}
    assert found["best-of-n"].memory < found["sft"].memory < found["dpo"].memory == found["ipo"].memory
    assert {each.options["lora"] for each in found.values()} == {True}


def test_options_are_keys_of_the_recipe(choice, tmp_path: Path):
    """Each candidate's options make its config."""
    for each in candidates():
        options = hyperparameters(each, choice.features, {"lora": True})
        if each.algorithm is not None:
            config = ALGORITHMS[each.algorithm].load()[1]
            names = {field.name for field in dataclasses.fields(config)}
            values = {name: value for name, value in options.items() if name not in ("lora", "quantization")}
            assert set(values) <= names
            config(str(tmp_path), report_to="none", **values)


def test_a_choice_as_json(choice):
    figures = json.loads(json.dumps(choice.to_json()))
    assert figures["algorithm"] == choice.algorithm
    assert set(figures["scores"]) == set(choice.scores)
    assert choice.algorithm in str(choice)


def test_wrong_weights_are_refused(tiny_model_dir: str):
    with pytest.raises(UserError, match="no part 'luck'"):
        select_algorithm(ROWS, tiny_model_dir, weights={"luck": 1.0})
    with pytest.raises(UserError, match="all are 0"):
        select_algorithm(ROWS, tiny_model_dir, weights={"data": 0})


def _reward(folder: Path, base: str, rows: list[dict]) -> str:
    """A reward model's folder with an adapter's config and the record of its training."""
    folder.mkdir()
    config = {"peft_type": "LORA", "task_type": "SEQ_CLS", "base_model_name_or_path": base, "r": 4}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    record = RunRecord.start(folder, "reward", data=fingerprints_of(train=rows), base={"name": base})
    record.session(prefix="rm")
    record.end("finished")
    return str(folder)


@pytest.mark.parametrize("same", [True, False])
def test_a_reward_of_another_base_or_data_is_warned_of(tiny_model_dir: str, tmp_path: Path, same: bool):
    base, rows = (tiny_model_dir, ROWS) if same else ("ORG/OTHER", ROWS[:10])
    reward = _reward(tmp_path / "reward", base, rows)
    warnings = " ".join(reward_warnings(tiny_model_dir, reward, Dataset.from_list(ROWS)))
    assert ("is not the policy's" in warnings) is not same
    assert ("trained on other rows" in warnings) is not same


def test_a_reward_without_records_says_so(tiny_model_dir: str, tmp_path: Path):
    reward = tmp_path / "reward"
    reward.mkdir()
    (reward / "config.json").write_text(
        json.dumps({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]})
    )
    warnings = " ".join(reward_warnings(tiny_model_dir, str(reward), Dataset.from_list(ROWS)))
    assert "doesn't say which base" in warnings
    assert "no record of its data" in warnings
