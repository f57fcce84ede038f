"""What must hold before the first step holds, or training is refused and says why."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from torch import nn
from transformers import LlamaForSequenceClassification

from hf_align.errors import UserError
from hf_align.models.runner import Compared
from hf_align.trainers.dpo import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from hf_align.trainers.start_checks import difference_of_passes
from tests.tiny import tiny_model, tiny_tokenizer
from tests.trainers.pairs import options, pairs
from tests.trainers.test_base import same_weights

Make = Callable[..., Any]


def lora(**settings: Any) -> LoraConfig:
    return LoraConfig(**{"r": 2, "target_modules": ["q_proj", "v_proj"], **settings})


def reward(out: Path, model: Any, trainer_options: dict[str, Any] | None = None, **changes: Any) -> RewardTrainer:
    return RewardTrainer(
        model,
        args=RewardConfig(**options(out, **changes)),
        train_dataset=pairs(4),
        processing_class=tiny_tokenizer(),
        **(trainer_options or {}),
    )


def dpo(
    out: Path,
    model: Any,
    trainer_options: dict[str, Any] | None = None,
    trainer_class: type[DPOTrainer] = DPOTrainer,
    **changes: Any,
) -> DPOTrainer:
    return trainer_class(
        model,
        args=DPOConfig(**options(out, **changes)),
        train_dataset=pairs(4),
        processing_class=tiny_tokenizer(),
        **(trainer_options or {}),
    )


def ipo(out: Path, model: Any, trainer_options: dict[str, Any] | None = None, **changes: Any) -> IPOTrainer:
    return IPOTrainer(
        model,
        args=IPOConfig(**options(out, **changes)),
        train_dataset=pairs(4),
        processing_class=tiny_tokenizer(),
        **(trainer_options or {}),
    )


def ppo(out: Path, model: Any, trainer_options: dict[str, Any] | None = None, **changes: Any) -> PPOTrainer:
    return PPOTrainer(
        model,
        args=PPOConfig(**options(out, max_new_tokens=4, **changes)),
        train_dataset=Dataset.from_dict({"prompt": [f"Say {number}:" for number in range(4)]}),
        processing_class=tiny_tokenizer(),
        reward=lambda prompts, responses: [float(len(response)) for response in responses],
        **(trainer_options or {}),
    )


def classifier_of(model: Any) -> Any:
    torch.manual_seed(0)
    model.config.num_labels = 1
    result = LlamaForSequenceClassification(model.config)
    result.model.load_state_dict(model.model.state_dict())
    return result


# ---- the optimizer ----


@pytest.mark.parametrize(
    ("make", "missing", "moves"),
    [(reward, "lora_A", "lora_B"), (dpo, "lora_A", "lora_B"), (ppo, "value_head", "value_head.weight")],
)
def test_every_trainable_parameter_is_in_the_optimizer_or_training_is_refused_by_name(
    make: Make, missing: str, moves: str, tmp_path: Path
):
    model = classifier_of(tiny_model()) if make is reward else tiny_model()
    adapter = {} if make is ppo else {"peft_config": lora(r=1)}
    given = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = make(tmp_path, model, {**adapter, "optimizers": (given, None)})
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    message = rf"trainable parameters are not in the optimizer.*{missing}.*optimizer_cls_and_kwargs"
    with pytest.raises(UserError, match=message):
        trainer.train()
    assert all(torch.equal(before[name], parameter) for name, parameter in trainer.model.named_parameters())
    # As the message says: the class, or an optimizer of what there is now.
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    trainer.train()
    moved = {name: not torch.equal(before[name], p) for name, p in trainer.model.named_parameters()}
    assert all(moved[name] for name in moved if moves in name)


def test_an_optimizer_given_as_a_class_trains_what_the_trainer_makes(tmp_path: Path):
    trainer = dpo(
        tmp_path,
        tiny_model(),
        {"peft_config": lora(), "optimizer_cls_and_kwargs": (torch.optim.Adam, {"lr": 0.01})},
    )
    trainer.train()
    moved = {name: p.abs().max() for name, p in trainer.model.named_parameters() if "lora_B" in name}
    assert moved and all(moved.values())


# ---- two passes ----


class Hidden(nn.Module):
    """Something random in train mode that nothing in its name or config tells."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Any, *args: Any, **kwargs: Any) -> Any:
        scale = 1 + 0.1 * torch.rand(()) if self.training else 1
        return self.layer(hidden * scale, *args, **kwargs)


def hide_randomness(model: Any) -> Any:
    model.model.layers[0].mlp = Hidden(model.model.layers[0].mlp)
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [(reward, "Two passes"), (dpo, "Two passes"), (ipo, "Two passes"), (ppo, "ratios don't start at 1")],
)
def test_what_is_random_without_being_dropout_is_refused_before_the_first_step(
    make: Make, message: str, tmp_path: Path
):
    model = classifier_of(tiny_model()) if make is reward else tiny_model()
    trainer = make(tmp_path, hide_randomness(model))
    before = {name: parameter.detach().clone() for name, parameter in trainer.model.named_parameters()}
    with pytest.raises(UserError, match=message):
        trainer.train()
    assert all(torch.equal(before[name], parameter) for name, parameter in trainer.model.named_parameters())
    wanted = make(tmp_path, model, disable_dropout=False)
    wanted.train()
    assert wanted.state.global_step == 1, "randomness that was asked for isn't refused"


def test_evaluation_alone_refuses_what_is_random_in_the_mode_it_scores_in(tmp_path: Path):
    trainer = ppo(tmp_path, hide_randomness(tiny_model()))
    with pytest.raises(UserError, match="Two passes"):
        trainer.evaluate([{"prompt": "Say 1:"}])


def test_a_random_reference_is_refused_as_a_random_policy_is(tmp_path: Path):
    trainer = dpo(tmp_path, tiny_model(), {"ref_model": hide_randomness(tiny_model())})
    with pytest.raises(UserError, match="Two passes"):
        trainer.train()


def test_two_passes_in_train_mode_are_the_same_bits(tmp_path: Path):
    trainer = dpo(tmp_path, tiny_model(attention_dropout=0.3), {"peft_config": lora(lora_dropout=0.3)})
    branches = trainer.data_collator([trainer.train_dataset[0]])["branches"]
    assert difference_of_passes(trainer.runner, trainer.model.train(), branches) == 0


# ---- the first loss ----


def test_a_reference_that_is_not_the_policy_as_given_is_refused_before_the_first_step(tmp_path: Path):
    changed = {"peft_config": lora(init_lora_weights=False)}  # the base under it is not the policy
    with pytest.raises(UserError, match=r"Policy and reference differ by .*\(init_lora_weights\)"):
        dpo(tmp_path, tiny_model(), changed).train()
    with pytest.raises(UserError, match="Policy and reference differ"):
        ipo(tmp_path, tiny_model(), changed).train()
    named = dpo(tmp_path, tiny_model(), {**changed, "ref_model": tiny_model()})
    named.train()
    assert named.state.log_history[0]["loss"] != pytest.approx(math.log(2), abs=1e-3)


def test_a_policy_that_was_trained_before_may_differ_from_its_reference(tmp_path: Path):
    trainer = dpo(tmp_path, tiny_model(), max_steps=2, save_strategy="steps", save_steps=1)
    trainer.train()
    trainer.train()
    resumed = dpo(tmp_path, tiny_model(), max_steps=2)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert resumed.state.global_step == 2


# ---- NEFTune ----


@pytest.mark.parametrize("how", ["adapter off", "snapshot", "explicit"])
def test_policy_and_reference_see_the_same_noise(how: str, tmp_path: Path):
    reference = {"adapter off": {"peft_config": lora()}, "snapshot": {}, "explicit": {"ref_model": tiny_model()}}[how]
    logs = []
    for alpha in (None, 20.0):
        trainer = dpo(tmp_path, tiny_model(), reference, neftune_noise_alpha=alpha)
        trainer.train()
        logs.append(trainer.state.log_history[0])
    assert [log["loss"] for log in logs] == pytest.approx([math.log(2)] * 2, abs=1e-6)
    assert logs[0]["logps/chosen"] != pytest.approx(logs[1]["logps/chosen"], abs=0.1), "there was noise"
    assert not any("neftune_noise_alpha" in vars(module) for module in trainer.model.modules())


def test_noise_is_where_the_loss_is_trained_or_refused(tmp_path: Path):
    scores, losses = [], []
    for alpha in (None, 20.0):
        trainer = reward(tmp_path, classifier_of(tiny_model()), neftune_noise_alpha=alpha, learning_rate=0.0)
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
        scores.append(trainer.evaluate(pairs(4))["eval_loss"])
    assert losses[0] != pytest.approx(losses[1], abs=1e-3) and scores[0] == scores[1]
    with pytest.raises(UserError, match=r"neftune_noise_alpha is 5\.0: the loss compares the policy with that of"):
        PPOConfig(**options(tmp_path, neftune_noise_alpha=5.0))
    with pytest.raises(UserError, match="neftune_noise_alpha doesn't go with precompute_ref_log_probs"):
        DPOConfig(**options(tmp_path, neftune_noise_alpha=5.0, precompute_ref_log_probs=True))


# ---- the checks themselves ----


class Unchecked(DPOTrainer):
    def check_start(self, model: nn.Module, inputs: dict[str, Any]) -> None:
        """Nothing is checked."""


def test_checks_leave_no_trace_in_what_is_trained(tmp_path: Path):
    """Generators and modes are as they were: noise is drawn on from where it stood."""
    runs = []
    for trainer_class in (DPOTrainer, Unchecked):
        trainer = dpo(tmp_path, tiny_model(), trainer_class=trainer_class, neftune_noise_alpha=5.0, max_steps=3)
        if trainer_class is Unchecked:  # as if both had been compared
            trainer.runner._compared = {id(each): Compared(10**6, 10**6) for each in trainer.branch_models()}
        trainer.train()
        runs.append(trainer.model)
    same_weights(*runs, atol=0, rtol=0)
