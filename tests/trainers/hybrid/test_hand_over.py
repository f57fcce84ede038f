"""Weights, references and memory from stage to stage."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import TrainerCallback

from hf_align.errors import UserError
from hf_align.evaluation.writing import token_logps
from hf_align.losses import ipo_loss
from hf_align.models.adapters import adapter_parameters
from hf_align.models.loading import load_policy
from hf_align.progress import Silent
from hf_align.trainers import HybridConfig, HybridTrainer, Stage
from hf_align.trainers.base import BranchTrainer
from tests.trainers.hybrid import run
from tests.trainers.hybrid.run import demonstrations, hybrid, lora, rows, save_toy
from tests.trainers.toy import toy_model, toy_tokenizer

shared, ppo = partial(run.shared, max_steps=1), partial(run.ppo, max_steps=2)
ENCODED = [([1], [2, 3]), ([1, 2], [4, 1]), ([3], [2])]


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def logps(model: Any) -> torch.Tensor:
    found = token_logps(model, ENCODED, toy_tokenizer(), Silent(), "")
    return torch.cat([torch.from_numpy(each) for each in found])


class Look(TrainerCallback):
    """Notes, before each stage's first step, the adapters, the base's storage, and the reference's log-probs."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.adapters: list[list[str]] = []
        self.nested: list[int] = []
        self.base: list[int] = []
        self.trained: list[int] = []
        self.policy: list[torch.Tensor] = []
        self.reference: list[torch.Tensor] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        wrapper = self.trainer.model
        model = getattr(wrapper, "model", wrapper)
        self.adapters.append(sorted(getattr(model, "peft_config", {})))
        self.nested.append(sum(isinstance(each, PeftModel) for each in wrapper.modules()))
        self.base.append(next(p for n, p in model.named_parameters() if "gate_proj" in n).data_ptr())
        self.trained.append(sum(p.numel() for p in wrapper.parameters() if p.requires_grad))
        self.policy.append(logps(model))
        if hasattr(self.trainer, "reference"):
            with self.trainer.reference.scored_as(wrapper) as scorer:
                self.reference.append(logps(scorer.model))


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    """A callback of each stage that knows the stage's trainer."""
    look, train = Look(), transformers.Trainer.train

    def looked_at(trainer: transformers.Trainer, *args: Any, **options: Any) -> Any:
        look.trainer = trainer
        trainer.add_callback(look)
        return train(trainer, *args, **options)

    monkeypatch.setattr("transformers.Trainer.train", looked_at)
    return look


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that a run loads."""
    names: list[str] = []

    load = transformers.AutoModelForCausalLM.from_pretrained

    def noted(name: Any, *args: Any, **options: Any) -> Any:
        names.append(Path(name).name)
        return load(name, *args, **options)

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", noted)
    return names


def test_one_base_carries_the_adapter_through_all_stages(tmp_path: Path, look: Look, loads: list[str]):
    toy = save_toy(tmp_path / "toy")
    stages = [
        Stage("dpo", shared()),
        Stage("ppo", ppo(value_model="adapter")),
        Stage("ipo", shared(), reference="previous"),
    ]
    trainer = hybrid(toy, tmp_path / "out", stages)
    state = trainer.train()
    assert loads == ["toy"] and len(set(look.base)) == 1 and look.nested == [1, 1, 1]
    assert look.adapters == [["default"], ["default", "value"], ["default", "reference"]]
    start = logps(toy_model())
    same(look.reference[0], start)
    same(look.reference[1], start)  # PPO's is the start, not what DPO made
    assert (look.policy[1] - start).abs().max() > 1e-3
    same(look.reference[2], look.policy[2])  # IPO's is what PPO made
    assert (look.policy[2] - look.policy[1]).abs().max() > 1e-3
    assert [each["hand_over"]["reference"] for each in state["stages"]] == [
        "the start",
        "the start (without the adapter)",
        "the policy as handed over",
    ]
    same(logps(load_policy(tmp_path / "out")), logps(trainer.model))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| 3 | ipo |" in card and "`baseline` value" in card and "`policy_loss` clip" in card
    assert not list((tmp_path / "out").rglob("checkpoint-*")) and (tmp_path / "out" / "stage-2-ppo" / "policy").exists()
    trainer.save_model(str(tmp_path / "copy"))
    same(logps(load_policy(tmp_path / "copy")), logps(trainer.model))
    assert not [name for name in ("hybrid.json", "run.sqlite") if (tmp_path / "copy" / name).exists()]
    assert (tmp_path / "out" / "run.sqlite").exists()
    gc.collect()  # of all trainers only the last is left, with one set of the base's weights
    out = str(tmp_path / "out")
    alive = [each for each in gc.get_objects() if isinstance(each, BranchTrainer) and out in each.args.output_dir]
    assert alive == [trainer.trainer]
    assert trainer.evaluate(rows())["eval_loss"] > 0


def test_the_first_loss_of_a_later_stage_is_that_of_its_reference(tmp_path: Path, look: Look):
    """IPO with the start as reference begins at the loss of DPO's policy, by another implementation."""
    toy = save_toy(tmp_path / "toy")
    one = rows().select([0])
    stages = [Stage("dpo", shared()), Stage("ipo", shared(per_device_train_batch_size=1))]
    hybrid(toy, tmp_path / "out", stages, train_dataset=one).train()
    logged = next(each["loss"] for each in look.trainer.state.log_history if "loss" in each)
    tokenizer, policy, start = toy_tokenizer(), load_policy(tmp_path / "out" / "stage-1-dpo" / "policy"), toy_model()

    def summed(model: nn.Module, response: str) -> torch.Tensor:
        prompt, ids = tokenizer(one[0]["prompt"])["input_ids"], tokenizer(response)["input_ids"] + [0]
        logits = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(-1).gather(1, torch.tensor(ids)[:, None]).sum()

    sides = [one[0]["chosen"], one[0]["rejected"]]
    sums = [summed(model.eval(), side)[None] for model in (policy, start) for side in sides]
    lengths = [torch.tensor([len(tokenizer(side)["input_ids"]) + 1]) for side in sides]
    loss = ipo_loss(*sums, beta=0.1, chosen_lengths=lengths[0], rejected_lengths=lengths[1])
    assert logged == pytest.approx(loss.item(), rel=1e-4)


def test_what_sft_made_is_the_reference_and_nothing_is_nested(tmp_path: Path, look: Look, loads: list[str]):
    toy = save_toy(tmp_path / "toy")
    stages = [Stage("sft", shared(), train_dataset=demonstrations()), Stage("dpo", shared()), Stage("ipo", shared())]
    hybrid(toy, tmp_path / "out", stages, keep="last").train()
    assert look.adapters == [["default"], ["default", "reference"], ["default", "hybrid_start"]] and set(
        look.nested
    ) == {1}
    assert (look.policy[1] - look.policy[0]).abs().max() > 1e-3
    same(look.reference[1], look.policy[1])
    assert loads == ["toy"]
    copies = adapter_parameters(look.trainer.model, "hybrid_start")
    assert copies and not any(each.requires_grad for each in copies)
    dropouts = [m.lora_dropout["hybrid_start"] for m in look.trainer.model.modules() if hasattr(m, "lora_dropout")]
    assert all(isinstance(each, nn.Identity) for each in dropouts)
    kept = {path.parent.name for path in (tmp_path / "out").glob("stage-*/policy")}
    assert kept == {"stage-3-ipo"}


def test_a_new_adapter_is_on_merged_weights_and_the_end_is_whole(tmp_path: Path, look: Look, loads: list[str]):
    toy = save_toy(tmp_path / "toy")
    stages = [
        Stage("dpo", shared()),
        Stage("ipo", shared(), adapter="new", peft_config=lora(3)),
        Stage("dpo", shared(), adapter="merge", reference="start"),
    ]
    trainer = hybrid(toy, tmp_path / "out", stages)
    trainer.train()
    assert look.adapters == [["default"], ["default"], []] and look.nested == [1, 1, 0]
    assert loads == ["toy", "toy", "merged", "merged", "merged", "toy"]  # two merges' own; the last is the start
    same(look.reference[1], look.policy[1])  # IPO's default after a merge
    same(look.policy[1], logps(load_policy(tmp_path / "out" / "stage-1-dpo" / "policy")))
    same(look.reference[2], logps(toy_model()))
    assert look.trained[0] * 3 == look.trained[1] * 2 and look.trained[2] > look.trained[1]
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    same(logps(load_policy(tmp_path / "out")), logps(trainer.model))


@pytest.mark.slow
def test_a_last_adapter_on_merged_weights_is_merged_too(tmp_path: Path):
    toy = save_toy(tmp_path / "toy")
    trainer = hybrid(toy, tmp_path / "out", [Stage("dpo", shared()), Stage("ipo", shared(), adapter="new")])
    trainer.train()
    assert not (tmp_path / "out" / "adapter_config.json").exists()
    final = load_policy(tmp_path / "out")
    assert not isinstance(final, PeftModel)
    same(logps(final), logps(trainer.model))
    assert (
        "This repository holds whole weights: the LoRA adapter was merged" in (tmp_path / "out/README.md").read_text()
    )


def test_a_model_object_with_an_adapter_is_the_start(tmp_path: Path, look: Look):
    config = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    torch.manual_seed(1)
    model = get_peft_model(toy_model(), config)
    start = logps(model)
    hybrid(model, tmp_path / "out", [Stage("dpo", shared()), Stage("ipo", shared())], peft_config=None).train()
    same(look.reference[0], start)
    same(look.reference[1], start)
    assert look.adapters[1] == ["default", "hybrid_start"] and (look.policy[1] - start).abs().max() > 1e-3


def test_evaluate_and_push_need_a_policy(tmp_path: Path):
    trainer = hybrid(save_toy(tmp_path / "toy"), tmp_path / "out")
    with pytest.raises(UserError, match="wasn't trained in this process"):
        trainer.evaluate()
    for call in (trainer.save_model, trainer.push_to_hub, trainer.create_model_card):
        with pytest.raises(UserError, match=r"train\(\) first"):
            call()
    with pytest.raises(UserError, match="args is a dict; give a HybridConfig"):
        HybridTrainer(str(tmp_path / "toy"), args={"seed": 1})  # type: ignore[arg-type]
    with pytest.raises(UserError, match="keep is 'some'"):
        HybridConfig("out", keep="some")  # type: ignore[arg-type]
