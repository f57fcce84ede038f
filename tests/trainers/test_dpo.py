"""DPO and IPO: the loss, the reference, one step compared with TRL's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from datasets import DatasetDict
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl.trainer.dpo_config import DPOConfig as TheirDPOConfig
from trl.trainer.dpo_trainer import DPOTrainer as TheirDPOTrainer

from hf_align.errors import UserError
from hf_align.models.loading import load_policy
from hf_align.models.policy import PolicyModel
from hf_align.trainers.dpo import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer
from tests.trainers.pairs import options, pairs, text_pairs

LORA = LoraConfig(r=4, target_modules="all-linear")


def lora() -> LoraConfig:
    return LoraConfig(r=4, target_modules="all-linear")


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def train(model: Any, out: Path, rows=None, trainer=DPOTrainer, config=DPOConfig, trainer_options=None, **changes: Any):
    """A short run; the trainer and its first log."""
    result = trainer(
        model,
        args=config(**options(out, **changes)),
        train_dataset=pairs() if rows is None else rows,
        **(trainer_options or {}),
    )
    result.train()
    return result, result.state.log_history[0]


@pytest.mark.parametrize(
    ("base", "setting"),
    [
        pytest.param("cut_base_dir", {}, id="first-layers-fp32"),
        pytest.param("base_dir", {}, id="fp32", marks=pytest.mark.slow),
        pytest.param("base_dir", {"bf16": True}, id="bf16", marks=pytest.mark.slow),
        pytest.param("base_dir", {"quantization_config": "8bit"}, id="8bit", marks=pytest.mark.slow),
        pytest.param("base_dir", {"quantization_config": "4bit"}, id="4bit", marks=pytest.mark.slow),
    ],
)
def test_the_first_loss_is_log_2_on_the_real_model(
    request: pytest.FixtureRequest, tmp_path: Path, base: str, setting: dict[str, Any]
):
    base_dir = request.getfixturevalue(base)
    trainer_options = {"peft_config": lora(), **{k: v for k, v in setting.items() if k != "bf16"}}
    trainer, log = train(base_dir, tmp_path, pairs(2), trainer_options=trainer_options, bf16=setting.get("bf16", False))
    assert log["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert log["rewards/margins"] == 0
    weights = weights_of(trainer.model)
    assert any(weight.abs().max() > 0 for name, weight in weights.items() if "lora_B" in name)


@pytest.mark.parametrize(
    ("setting", "bound"),
    [
        pytest.param({}, 1e-3, id="fp32", marks=pytest.mark.slow),
        pytest.param({"bf16": True}, 1.0, id="bf16", marks=pytest.mark.slow),
        pytest.param({"bf16": True, "quantization_config": "8bit"}, 1.0, id="8bit", marks=pytest.mark.slow),
        pytest.param({"bf16": True, "quantization_config": "4bit"}, 1.0, id="4bit", marks=pytest.mark.slow),
    ],
)
def test_cached_log_probs_are_within_their_stated_bound_on_the_real_model(
    base_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any], bound: float
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    trainer = DPOTrainer(
        base_dir,
        args=DPOConfig(**options(tmp_path, precompute_ref_log_probs=True, bf16=setting.get("bf16", False))),
        train_dataset=pairs(),
        peft_config=lora(),
        quantization_config=setting.get("quantization_config"),
    )
    rows: Any = trainer.train_dataset
    model = trainer.model.train()
    differences, rounded, cached = [], [], []
    for numbers in ((7, 0), (3, 5), (1, 6), (4, 2)):  # not as they were scored: all eight, sorted by length
        batch: dict[str, Any] = trainer.data_collator([rows[number] for number in numbers])
        with trainer.accelerator.autocast():
            in_batch = trainer.reference_logps(model, batch["branches"])
        rounded.append(in_batch - trainer.reference_logps(model, batch["branches"]))  # without autocast: float32
        differences.append(in_batch - batch["ref_logps"])
        cached.append(batch["ref_logps"])
    assert torch.cat(cached).std() > 5, "responses differ by far more than the bound"
    assert torch.cat(differences).abs().max() < bound
    if setting:  # two passes that each round on their own differ by sqrt(2) times what this processor rounds in one
        assert torch.cat(differences).square().mean() < 3**2 * torch.cat(rounded).square().mean()


@pytest.mark.parametrize("how", ["snapshot", "explicit", "incoming adapter", "precomputed"])
def test_every_reference_is_the_policy_as_given(tiny_model_dir: str, tmp_path: Path, how: str, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    model: Any = load_policy(tiny_model_dir)
    trainer_options: dict[str, Any] = {}
    changes: dict[str, Any] = {}
    with torch.no_grad():  # changed in memory: the weights on disk aren't its reference
        model.model.embed_tokens.weight.mul_(1.1)
    if how == "explicit":
        trainer_options["ref_model"] = load_policy(tiny_model_dir)
        with torch.no_grad():
            trainer_options["ref_model"].model.embed_tokens.weight.mul_(1.1)
    if how == "incoming adapter":
        adapter = tmp_path / "adapter"
        load_policy(
            tiny_model_dir, lora=LoraConfig(target_modules="all-linear", init_lora_weights=False)
        ).save_pretrained(str(adapter))
        model = load_policy(adapter)
    if how == "precomputed":
        changes["precompute_ref_log_probs"] = True
    changes |= {"max_steps": 3, "learning_rate": 0.01, "per_device_train_batch_size": 8}
    trainer, log = train(model, tmp_path, trainer_options=trainer_options, **changes)
    assert log["loss"] == pytest.approx(math.log(2), abs=1e-4 if how == "precomputed" else 1e-6)
    later = trainer.state.log_history[2]
    assert later["loss"] < math.log(2) - 0.01, "the reference stays while the policy moves"


def test_the_frozen_copy_of_an_adapter_is_not_saved(tiny_model_dir: str, tmp_path: Path):
    load_policy(tiny_model_dir, lora=True).save_pretrained(str(tmp_path / "adapter"))
    trainer, _ = train(str(tmp_path / "adapter"), tmp_path / "out")
    trainer.save_model()
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == []
    again = PeftModel.from_pretrained(load_policy(tiny_model_dir), tmp_path / "out")
    assert list(again.peft_config) == ["default"]


def test_cached_log_probs_are_found_again_whatever_the_learning_rate(tiny_model_dir: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))

    def entries(**changes: Any) -> int:
        rows = changes.pop("rows", pairs())
        model = changes.pop("model", tiny_model_dir)
        train(model, tmp_path, rows, trainer_options={"peft_config": lora()}, precompute_ref_log_probs=True, **changes)
        return len(list((tmp_path / "cache").rglob("*.safetensors")))

    assert entries() == 1
    assert entries(learning_rate=0.5, beta=0.3, seed=3) == 1, "nothing that matters to the reference changed"
    assert entries(rows=pairs(5)) == 2
    assert entries(layout="separate") == 3
    other = load_policy(tiny_model_dir)
    with torch.no_grad():
        other.model.norm.weight.mul_(1.01)
    assert entries(model=other) == 4


def test_rows_given_to_evaluate_are_prepared_as_the_trainers_own(tiny_model_dir: str, tmp_path: Path):
    rows: Any = pairs(3)
    trainer, _ = train(tiny_model_dir, tmp_path, pairs(2), trainer_options={"eval_dataset": rows}, max_steps=2)
    own, given = trainer.evaluate(), trainer.evaluate(rows)
    assert given["eval_loss"] == own["eval_loss"] != pytest.approx(math.log(2))
    assert trainer.evaluate({"a": rows})["eval_a_loss"] == own["eval_loss"]
    assert cast(Any, trainer.predict(rows)).metrics["test_loss"] == own["eval_loss"]
    with pytest.raises(UserError, match="eval_dataset"):
        trainer.evaluate(rows.remove_columns("rejected"))
    assert trainer.evaluate(cast(Any, trainer.eval_dataset).select(range(3)))["eval_loss"] == own["eval_loss"]
    for name in ("prompt_ids", "response_ids"):
        with pytest.raises(UserError, match=f"eval_dataset has a column {name}, which the trainer adds; rename"):
            trainer.evaluate(rows.add_column(name, [[1]] * 3))


def test_a_reference_that_is_gone_scores_no_new_rows(tiny_model_dir: str, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    rows: Any = pairs(3)
    own: dict[str, Any] = {"eval_dataset": rows}
    trainer, _ = train(tiny_model_dir, tmp_path, pairs(2), trainer_options=own, precompute_ref_log_probs=True)
    assert trainer.evaluate()["eval_loss"] != pytest.approx(math.log(2), abs=1e-4)
    with pytest.raises(UserError, match="keeps no copy of the reference"):
        trainer.evaluate(rows)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"loss_type": ["robust"], "label_smoothing": 0.2},
        {"loss_type": ["ipo"], "learning_rate": 0.001},
        {"ld_alpha": 0.3},
        {"loss_type": ["sigmoid", "apo_zero"], "loss_weights": [0.5, 2.0]},
    ],
    ids=["sigmoid", "robust", "ipo", "ld", "list"],
)
def test_one_step_equals_trl_s(tiny_model_dir: str, tmp_path: Path, extra: dict[str, Any]):
    extra = {"max_grad_norm": 0.0, **extra}  # clipping would hide a factor
    ours = train(load_policy(tiny_model_dir), tmp_path, text_pairs(2), **extra)
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    theirs_config = options(tmp_path, gradient_checkpointing=False, **extra)
    theirs = TheirDPOTrainer(
        model,
        args=TheirDPOConfig(**theirs_config),
        train_dataset=text_pairs(2),
        processing_class=AutoTokenizer.from_pretrained(tiny_model_dir),
    )
    theirs.train()
    before = weights_of(load_policy(tiny_model_dir))
    assert ours[1]["loss"] == pytest.approx(theirs.state.log_history[0]["loss"], abs=1e-4)
    compare_updates(before, weights_of(ours[0].model.model), weights_of(theirs.model))


@pytest.mark.slow
def test_one_step_equals_trl_s_on_the_real_model(base_dir: str, tmp_path: Path):
    ours = train(load_policy(base_dir), tmp_path, text_pairs(2), learning_rate=1e-3)
    model = AutoModelForCausalLM.from_pretrained(base_dir, dtype=torch.float32)
    args = TheirDPOConfig(**options(tmp_path, gradient_checkpointing=False, learning_rate=1e-3))
    theirs = TheirDPOTrainer(
        model, args=args, train_dataset=text_pairs(2), processing_class=AutoTokenizer.from_pretrained(base_dir)
    )
    theirs.train()
    assert ours[1]["loss"] == pytest.approx(theirs.state.log_history[0]["loss"], abs=1e-4)
    compare_updates(weights_of(load_policy(base_dir)), weights_of(ours[0].model.model), weights_of(theirs.model))


def compare_updates(before: dict, ours: dict, theirs: dict) -> None:
    """The same weights to 1e-4, and the same change of each to 1%."""
    assert ours.keys() == theirs.keys() == before.keys()
    for name, weight in ours.items():
        torch.testing.assert_close(weight, theirs[name], atol=1e-4, rtol=1e-4, msg=name)
        moved = (theirs[name] - before[name]).norm()
        assert (weight - theirs[name]).norm() <= 0.01 * moved + 1e-7, name


def test_a_list_of_losses_adds_up(tiny_model_dir: str, tmp_path: Path):
    alone = [train(tiny_model_dir, tmp_path, pairs(2), loss_type=name)[1]["loss"] for name in ("sigmoid", "ipo")]
    _, both = train(tiny_model_dir, tmp_path, pairs(2), loss_type=["sigmoid", "ipo"], loss_weights=[0.5, 2.0])
    assert both["loss"] == pytest.approx(0.5 * alone[0] + 2 * alone[1], rel=1e-5)
    assert alone[1] == pytest.approx(25, rel=1e-4), "at step 0 IPO is (0 - 1/(2 * 0.1))^2"


def test_ipo_s_textbook_form_is_an_option(tiny_model_dir: str, tmp_path: Path):
    _, log = train(
        tiny_model_dir, tmp_path, trainer=IPOTrainer, config=IPOConfig, ipo_target=1 / 0.1, ipo_reduction="sum"
    )
    assert log["loss"] == pytest.approx(100, rel=1e-4)


def test_a_weight_counts_a_row_that_often(tiny_model_dir: str, tmp_path: Path):
    weighted = pairs(2, weights=[2.0, 1.0])
    repeated = pairs(2).select([0, 0, 1])
    runs = [
        train(load_policy(tiny_model_dir), tmp_path, rows, per_device_train_batch_size=3, loss_type="ipo")[0]
        for rows in (weighted, repeated)
    ]
    for name, weight in weights_of(runs[0].model).items():
        torch.testing.assert_close(weight, weights_of(runs[1].model)[name], atol=1e-6, rtol=1e-5)


def test_length_normalised_dpo_divides_by_the_tokens(tiny_model_dir: str, tmp_path: Path):
    model = load_policy(tiny_model_dir)
    with torch.no_grad():
        model.model.norm.weight.mul_(1.2)
    trainer_options = {"ref_model": tiny_model_dir}
    trainer, log = train(model, tmp_path, pairs(1), trainer_options=trainer_options, length_normalize=True)
    lengths = [len(ids) for ids in trainer.train_dataset[0]["response_ids"]]
    chosen, rejected = (
        log[f"rewards/{side}"] / length for side, length in zip(("chosen", "rejected"), lengths, strict=True)
    )
    assert log["loss"] == pytest.approx(math.log1p(math.exp(rejected - chosen)), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"beta": 0}, "beta is 0"),
        ({"label_smoothing": 0.5}, "label_smoothing is 0.5"),
        ({"label_smoothing": 0.1, "loss_type": "ipo"}, "label_smoothing is 0.1, which loss_type 'ipo' ignores"),
        ({"loss_type": ["sigmoid", "ipo"], "loss_weights": [1.0]}, "loss_weights has 1 numbers for 2"),
        ({"loss_type": ["sigmoid", "ipo"], "loss_weights": [1.0, -1.0]}, "each weight must be 0 or more"),
        ({"loss_type": ["sigmoid", "ipo"], "loss_weights": [0.0, 0]}, "nothing is learnt"),
        ({"loss_weights": 2.0}, "loss_weights is 2.0; give a list"),
        ({"loss_weights": ["1"]}, "give a list with one number"),
        ({"beta": math.nan}, "beta is nan"),
        ({"layout": "flat"}, "layout is 'flat'"),
        ({"row_tokens": 0}, "row_tokens is 0"),
        ({"ipo_reduction": "max"}, "ipo_reduction is 'max'"),
    ],
)
def test_bad_options_are_named(tmp_path: Path, changes: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message.replace("(", r"\(")):
        DPOConfig(str(tmp_path), **changes)


def test_bad_arguments_are_named_before_anything_is_loaded(tiny_model_dir: str, tmp_path: Path):
    model = load_policy(tiny_model_dir)
    adapted = load_policy(tiny_model_dir, lora=True)
    args = DPOConfig(**options(tmp_path))
    no_limit = DPOConfig(**options(tmp_path, max_length=None))
    model_of_8 = load_policy(tiny_model_dir)
    model_of_8.config.max_position_embeddings = 8
    file = tmp_path / "file"
    file.touch()
    bad = pairs(3).map(lambda row, n: {"chosen": row["rejected"] if n == 1 else row["chosen"]}, with_indices=True)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("ref_model is the model itself", {"model": model, "ref_model": model}),
        (
            "ref_model shares weights with the model",
            {"model": adapted, "ref_model": cast(Any, adapted).get_base_model()},
        ),
        ("model is a PolicyModel, a trainer's wrapper", {"model": PolicyModel(model)}),
        ("train_dataset is missing", {"model": model, "train_dataset": None}),
        ("already has an adapter", {"model": adapted, "peft_config": lora()}),
        ("applies to a model given by name", {"model": model, "quantization_config": "8bit"}),
        (
            "identical",
            {
                "model": "no/such-model",
                "train_dataset": bad,
                "processing_class": AutoTokenizer.from_pretrained(tiny_model_dir),
            },
        ),
        ("nowhere' doesn't exist; name the folder", {"model": str(tmp_path / "nowhere")}),
        ("model is a int", {"model": 5}),
        ("train_dataset must be a datasets.Dataset", {"train_dataset": DatasetDict({"a": pairs(2)})}),
        ("peft_config, or lora: Target modules", {"peft_config": LoraConfig(target_modules=["nothing"])}),
        ("peft_config, or lora: .*positive", {"peft_config": LoraConfig(r=0, target_modules="all-linear")}),
        (
            "more than the 8 positions of the model; set max_length to at most 8",
            {"model": model_of_8, "args": no_limit},
        ),
        ("output_dir: can't write to .*file", {"args": DPOConfig(**options(file))}),
        ("trains only through an adapter", {"model": tiny_model_dir, "quantization_config": "8bit"}),
    ]
    for message, arguments in cases:
        with pytest.raises(UserError, match=message):
            DPOTrainer(**{"model": tiny_model_dir, "args": args, "train_dataset": pairs(2), **arguments})
    with pytest.raises(UserError, match="IPOConfig fixes it"):
        IPOConfig(str(tmp_path), loss_type="sigmoid")
