"""`plan`: monotone figures, parts that add up, sizes of models, suggestions, mistakes."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from hf_align.errors import UserError
from hf_align.experiments.recipe import read_recipe
from hf_align.experiments.run import prepare
from hf_align.planning import Plan, plan
from hf_align.planning.device import Device, read_size
from hf_align.planning.planner import named_algorithm

SHAPE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 2000,
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "dtype": "bfloat16",
}


SHALLOW = {**SHAPE, "num_hidden_layers": 2}
"""Traced once: that a few layers say what many take is `test_trace`'s."""
FEW = {"per_device_train_batch_size": 2, "max_length": 64}
"""Attention is traced row by row."""


@cache
def planned(algorithm: str = "dpo", **values: Any) -> Plan:
    return plan(SHAPE, algorithm, **{"device_memory": "24GB", "max_length": 128, **values})


@cache
def planned_shallow(**values: Any) -> Plan:
    return plan(SHALLOW, "dpo", **{"device_memory": "24GB", **FEW, **values})


def test_parts_add_up_and_the_largest_phase_decides() -> None:
    made = plan(SHALLOW, "ppo", device_memory="24GB", lora=True, max_prompt_length=64, max_new_tokens=64)
    assert sum(made.parts.values()) == pytest.approx(made.peak_bytes) == pytest.approx(max(made.phases.values()))
    assert made.device_bytes > made.peak_bytes
    assert {"update", "optimizer step", "last tokens of the responses"} <= set(made.phases)
    assert any("no reward is given" in note for note in made.notes)


def test_weights_gradients_and_optimizer_of_full_training_are_those_of_every_weight() -> None:
    made = planned_shallow()
    count = made.settings.outline.total
    assert made.parts["trained weights"] == made.parts["gradients"] == 4 * count
    assert made.parts["optimizer state (adamw_torch_fused)"] == 8 * count
    assert made.parts["reference, a copy"] == 4 * count


def test_less_precision_and_fewer_trained_weights_never_take_more() -> None:
    ways: list[dict[str, Any]] = [{}, {"lora": True}, *({"lora": True, "quantization": q} for q in ("4bit", "8bit"))]
    full, lora, four, eight = (planned_shallow(**way) for way in ways)
    # 8-bit layers keep their inputs, so activations grow.
    assert four.peak_bytes <= lora.peak_bytes <= full.peak_bytes
    assert four.parts["weights"] < eight.parts["weights"] < lora.parts["weights"]


def test_layers_of_a_model_of_8_billion_weights_take_less_the_fewer_bits_they_have() -> None:
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8}
    shape = {**SHAPE, **sizes, "num_hidden_layers": 2}
    values = {"device_memory": "80GB", "max_length": 1024, "per_device_train_batch_size": 4, "lora": True}
    peaks = [plan(shape, "reward", quantization=bits, **values).peak_bytes for bits in (None, "8bit", "4bit")]
    assert peaks == sorted(peaks, reverse=True) and peaks[0] > 1.1 * peaks[2]


def test_a_step_takes_its_parts_and_a_run_its_steps() -> None:
    made = planned_shallow(device_memory="h100", lora=True)
    slow = planned_shallow(device_memory="t4", max_steps=50, hours=1, lora=True)
    assert set(made.time.parts) == {"update", "reference", "optimizer"}
    assert made.step_seconds == sum(made.time.parts.values()) > 0
    assert made.time.parts["update"] > made.time.parts["reference"] > 0
    assert made.run_seconds is None and made.in_time is None
    assert slow.step_seconds >= made.step_seconds
    assert slow.run_seconds == pytest.approx(50 * slow.step_seconds) and slow.in_time
    lines = dict(slow.lines())
    assert lines["within 1 hours"] == "yes" and "for 50 steps" in lines["the run, about"]
    assert "T4 datasheet" in lines["time, note"]
    figures = slow.to_dict()
    assert figures["steps"] == 50 and figures["disk_peak_bytes"] > 3 * 4 * slow.settings.trained


PPO: dict[str, Any] = {"lora": True, "max_prompt_length": 16, "max_new_tokens": 16}


def test_a_value_adapter_is_a_second_one_and_without_a_critic_there_is_no_value_head() -> None:
    changes: list[dict[str, Any]] = [{}, {"value_model": "adapter"}, {"baseline": "group", "num_samples": 2}]
    shared, adapter, group = (plan(SHALLOW, "ppo", device_memory="24GB", **PPO, **each) for each in changes)
    head = SHAPE["hidden_size"] + 1
    policy = shared.settings.outline.trained
    assert shared.settings.trained == policy + head
    assert adapter.settings.trained == 2 * policy + head and group.settings.trained == policy
    for made in (shared, adapter, group):
        assert made.parts["trained weights"] == 4 * made.settings.trained
    assert adapter.time.parts["update"] > shared.time.parts["update"], "a second pass"
    assert set(shared.time.parts) == {"rollout", "scoring", "update", "optimizer"}


@pytest.mark.slow
def test_recomputation_never_takes_more() -> None:
    none, selective, full = (
        planned(lora=True, activation_recompute=mode, max_length=512).peak_bytes
        for mode in ("none", "selective", "full")
    )
    assert full <= selective <= none


@pytest.mark.slow
def test_longer_and_more_rows_never_take_less() -> None:
    sizes = [(4, 64), (8, 64), (8, 128)]
    made = [planned("reward", lora=True, per_device_train_batch_size=rows, max_length=most) for rows, most in sizes]
    peaks = [each.peak_bytes for each in made]
    assert peaks == sorted(peaks) and peaks[0] < peaks[-1]


@pytest.mark.slow
def test_what_does_not_fit_gets_the_cheapest_change_as_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    model, options = str(tmp_path / "config.json"), {"per_device_train_batch_size": 8, "lora": True, "max_length": 512}
    whole = plan(model, "dpo", device_memory="24GB", **options)
    single = plan(model, "dpo", device_memory="24GB", **{**options, "per_device_train_batch_size": 1})
    between = (whole.device_bytes + 2 * single.device_bytes) / 3
    tight = plan(model, "dpo", device_memory=between, **options)
    assert whole.fits and not tight.fits and tight.suggestion is not None and tight.suggestion.fits
    changes = tight.suggestion.changes
    assert changes is not None
    rows = changes["per_device_train_batch_size"] * changes["gradient_accumulation_steps"]
    assert rows == 8, "as many rows a step"
    (tmp_path / "fits.yaml").write_text(tight.recipe() + "train_dataset: rows.jsonl\n")
    run = prepare(named_algorithm("dpo"), read_recipe(str(tmp_path / "fits.yaml"), []))
    assert run.args.per_device_train_batch_size == changes["per_device_train_batch_size"]
    none = plan(model, "dpo", device_memory=whole.device_bytes / 1e3, **options)
    assert none.suggestion is None
    with pytest.raises(UserError, match="No change of batch"):
        none.recipe()


@pytest.mark.slow
def test_a_config_of_70_billion_weights_is_planned_from_two_and_four_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    depths: list[int] = []
    forward = torch.nn.Embedding.forward
    shape = LlamaConfig(
        vocab_size=128256,
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
        dtype=torch.bfloat16,
    )

    def noted(self: Any, ids: Any) -> Any:
        depths.append(1)
        return forward(self, ids)

    monkeypatch.setattr(torch.nn.Embedding, "forward", noted)
    made = plan(shape, "dpo", device_memory="80GB", quantization="4bit", lora=True, activation_recompute="full")
    assert made.settings.outline.total > 70e9
    assert 35e9 < made.parts["weights"] < 42e9
    assert all(parameter.is_meta for parameter in made.settings.outline.model.parameters()), "no data"
    assert len(depths) < 12


@pytest.mark.parametrize(
    ("algorithm", "values", "message"),
    [
        ("dpoo", {}, "there is no 'dpoo'; did you mean dpo?"),
        ("dpo", {"max_lenght": 5}, "max_lenght is not a valid key; did you mean max_length?"),
        ("dpo", {"device_memory": "24 apples"}, "'24 apples' is not an amount of memory"),
        ("dpo", {"quantization": "4bit"}, "only through an adapter"),
        ("dpo", {"lora": True, "layout": "sideways"}, "layout"),
        ("dpo", {"train_dataset": "rows.jsonl"}, "a config has no tokenizer"),
        ("dpo", {"beta": -1.0}, "beta is -1.0"),
        ("dpo", {"hours": 0}, "hours is 0; give a number above 0"),
    ],
)
def test_mistakes_are_one_sentence(algorithm: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        planned(algorithm, **values)
    assert message in str(error.value)


@pytest.mark.slow
def test_the_largest_batch_fits_and_the_next_does_not() -> None:
    values: dict[str, Any] = {"device_memory": "2GB", "lora": True, "max_length": 256}
    made = planned("reward", **values)
    assert made.largest_batch is not None and made.largest_batch > 8
    sizes = (made.largest_batch, made.largest_batch + 1)
    fits = [planned("reward", per_device_train_batch_size=size, **values).fits for size in sizes]
    assert fits == [True, False]


def test_configs_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UserError, match="can't be read as JSON"):
        plan(str(tmp_path / "broken.json"), "dpo", device_memory="1GB")
    with pytest.raises(UserError, match="has no model_type"):
        plan({"hidden_size": 5}, "dpo", device_memory="1GB")


def test_smoothed_labels_of_demonstrations_take_the_logits_of_all_tokens() -> None:
    plain, smoothed = (
        plan(SHALLOW, "sft", device_memory="24GB", label_smoothing_factor=factor, **FEW) for factor in (0.0, 0.1)
    )
    tokens = FEW["per_device_train_batch_size"] * FEW["max_length"]
    assert smoothed.phases["update"] - plain.phases["update"] == tokens * SHAPE["vocab_size"] * (2 + 12)


def test_models_that_training_refuses_are_not_planned(tmp_path: Path) -> None:
    for name in ("SequenceClassification", "CausalLM"):
        (tmp_path / name).mkdir()
        config = {**SHALLOW, "architectures": [f"LlamaFor{name}"]}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    reward, policy = str(tmp_path / "SequenceClassification"), str(tmp_path / "CausalLM")
    refused: list[tuple[Any, str, dict[str, Any], str]] = [
        (reward, "ppo", {}, "model: .* is a reward model"),
        (SHALLOW, "dpo", {"ref_model": reward}, "ref_model: .* is a reward model"),
        (SHALLOW, "ppo", {"reward": policy}, "has no reward head"),
        (SHALLOW, "dpo", {"ref_model": policy, "loss_type": "simpo"}, "ref_model"),
    ]
    for model, algorithm, values, message in refused:
        with pytest.raises(UserError, match=message):
            plan(model, algorithm, device_memory="1GB", **values)


def test_sizes_of_memory() -> None:
    assert read_size("24GB") == read_size("24 GiB") == read_size("24g") == read_size("24576MB") == 24 * 2**30
    assert read_size("900 MiB") == read_size(str(900 * 2**20)) == 900 * 2**20 and read_size(5) == 5
    for size in ("24", "24B", "24x", "24iB", "GB", "0GB", "-1GB", "", math.inf, math.nan):
        with pytest.raises(UserError, match="24GB"):
            read_size(size)
    device = Device.of("10GB")
    assert device.kind == "cuda" and device.needed(0) > 0
