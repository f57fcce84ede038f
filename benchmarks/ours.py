"""Our side of a benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, TrainerCallback

from benchmarks.measure import STARTED_ALIKE, Clock, Losses, memory, start_alike
from benchmarks.spec import Spec
from benchmarks.training import (
    common_arguments,
    load,
    lora,
    preference_arguments,
    read_rows,
    reserved_end,
    weights_dtype,
)
from hf_align.models.loading import load_policy
from hf_align.models.reward import load_reward_model
from hf_align.models.sources import load_tokenizer
from hf_align.rewards import Reward, as_reward
from hf_align.rollouts import Engine, SamplingRequest
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from hf_align.trainers.reward import RewardConfig, RewardTrainer


def train(spec: Spec) -> dict[str, Any]:
    """Run a spec; return the measurements, and the first step's numbers for the comparison."""
    trainer = (_ppo if spec.task == "ppo" else _preference)(spec)
    start_alike(trainer.model, spec.seed, STARTED_ALIKE[spec.task])
    replay = None
    if spec.responses and Path(spec.responses).exists():
        replay = FirstRollout(trainer, json.loads(Path(spec.responses).read_text(encoding="utf-8")))
        trainer.add_callback(replay)
    every = trainer.args.steps_per_rollout if spec.task == "ppo" else 1
    clock = Clock(every, spec.total_steps - 1 if spec.profile else None)
    trainer.add_callback(clock)
    losses = Losses(trainer.accelerator)
    trainer.train()
    return {
        "seconds": clock.seconds,
        "profile": clock.profile,
        "memory": memory() | {"start": clock.held},
        "losses": losses.values,
        "first": {"loss": losses.values[0], **_logged(trainer), **({} if replay is None else replay.logps)},
        "separate_layout": trainer.runner.separate,
    }


def _preference(spec: Spec) -> Any:
    data, tokenizer = Dataset.from_list(read_rows(spec)), load_tokenizer(spec.model)
    recompute = _recompute(spec)
    if spec.task == "reward":
        return RewardTrainer(
            load_reward_model(spec.model, dtype=weights_dtype(spec)),
            args=RewardConfig(**preference_arguments(spec), **recompute),
            train_dataset=data,
            processing_class=tokenizer,
            peft_config=lora(spec, "SEQ_CLS"),
        )
    return DPOTrainer(
        _policy(spec),
        args=DPOConfig(**preference_arguments(spec), **recompute),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=lora(spec, "CAUSAL_LM"),
    )


def _policy(spec: Spec) -> Any:
    if spec.quantization:
        return load_policy(spec.model, quantization=spec.quantization, dtype=weights_dtype(spec))
    return load(AutoModelForCausalLM, spec.model, weights_dtype(spec))


def _ppo(spec: Spec) -> PPOTrainer:
    tokenizer, policy = load_tokenizer(spec.model), _policy(spec)
    end = reserved_end(tokenizer)
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(end)
    policy.generation_config.eos_token_id = end
    assert spec.reward is not None
    adapter = (Path(spec.reward) / "adapter_config.json").exists()
    arguments = common_arguments(spec) | {
        "max_steps": spec.total_steps * spec.ppo_epochs,
        "num_ppo_epochs": spec.ppo_epochs,
        "num_samples": spec.num_samples,
        "max_new_tokens": spec.max_new_tokens,
        "kl_controller": "fixed",
        **_recompute(spec),
    }
    return PPOTrainer(
        policy,
        args=PPOConfig(**arguments),
        train_dataset=Dataset.from_list(read_rows(spec)),
        processing_class=tokenizer,
        peft_config=lora(spec, "CAUSAL_LM"),
        reward=spec.reward if adapter else load_reward_model(spec.reward, dtype=weights_dtype(spec)),
    )


def _recompute(spec: Spec) -> dict[str, Any]:
    return {"activation_recompute": "selective"} if spec.recompute else {}


def _logged(trainer: Any) -> dict[str, float]:
    """Figures of the first log that the peer also logs."""
    names = ("logps/chosen", "logps/rejected", "mean_reward", "grad_norm", "objective/scores")
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    return {name: logged[name] for name in names if name in logged}


class FirstRollout(TrainerCallback):
    """Use the peer's first rollout, responses and scores, as our first.

    Scores are reused so that the update is compared on the same numbers. (Both sides give the reward model the sampled
    ids; we end a response that ended in another way, for instance by a stop string, as the reward model learnt it.)

    Attributes:
        logps: After the first step, our log-probs of the responses, in the recording's order.
    """

    def __init__(self, trainer: PPOTrainer, recorded: list[dict[str, Any]]):
        self.trainer, self.recorded = trainer, {tuple(entry["prompt"]): entry for entry in recorded}
        self.logps: dict[str, Any] = {}
        self.engine: str | Engine = trainer.rollout_engine
        self.reward: Reward = trainer.reward
        trainer.rollout_engine = self._responses
        trainer.reward = as_reward(self._scores, tokenizer=trainer.reward.tokenizer)

    def _responses(self, model: Any, request: SamplingRequest) -> list[list[int]]:
        return [self.recorded[tuple(ids)]["response"] for ids in request.prompt_ids]

    def _scores(self, prompts: list[str], responses: list[str], prompt_ids: list[list[int]]) -> list[float]:
        return [self.recorded[tuple(ids)]["score"] for ids in prompt_ids]

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record the log-probs of the first step's rollout; later rollouts are our own."""
        if state.global_step != 1:
            return
        self.trainer.rollout_engine, self.trainer.reward = self.engine, self.reward
        rollout = self.trainer.rollout
        assert rollout is not None
        order = {tuple(prompt): row for row, prompt in enumerate(rollout.prompt_ids)}
        rows = torch.tensor([order[prompt] for prompt in self.recorded])
        self.logps = {name: rollout.tokens[name][rows].tolist() for name in ("old_logps", "ref_logps")}
