"""TRL's side of a benchmark. Imports nothing of ours except `benchmarks`; PYTHONPATH selects the TRL version."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from benchmarks.measure import STARTED_ALIKE, Clock, Losses, memory, start_alike
from benchmarks.spec import TRL_VERSIONS, Spec
from benchmarks.training import common_arguments, load, lora, preference_arguments, read_rows, weights_dtype


def train(spec: Spec) -> dict[str, Any]:
    """Run a spec; return the measurements, and the first step's numbers for the comparison."""
    if trl.__version__ != TRL_VERSIONS[spec.task]:
        raise RuntimeError(f"found TRL {trl.__version__}, needed {TRL_VERSIONS[spec.task]}")
    trainer, first = _ppo(spec) if spec.task == "ppo" else (_preference(spec), {})
    start_alike(trainer.model, spec.seed, STARTED_ALIKE[spec.task])
    clock = Clock(1, spec.total_steps - 1 if spec.profile else None)
    trainer.add_callback(clock)
    losses = Losses(trainer.accelerator)
    trainer.train()
    if spec.responses and spec.task == "ppo":
        scored = zip(first.pop("responses"), first.pop("scores"), strict=True)
        recorded = [{**entry, "score": score} for entry, score in scored]
        Path(spec.responses).write_text(json.dumps(recorded) + "\n", encoding="utf-8")
    return {
        "seconds": clock.seconds,
        "profile": clock.profile,
        "memory": memory() | {"start": clock.held},
        "losses": losses.values,
        "first": {"loss": losses.values[0], **_logged(trainer), **first},
    }


def _preference(spec: Spec) -> Any:
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    data, tokenizer = Dataset.from_list(read_rows(spec)), AutoTokenizer.from_pretrained(spec.model)
    if spec.task == "reward":
        return RewardTrainer(
            load(AutoModelForSequenceClassification, spec.model, weights_dtype(spec), num_labels=1),
            args=RewardConfig(**preference_arguments(spec)),
            train_dataset=data,
            processing_class=tokenizer,
            peft_config=lora(spec, "SEQ_CLS"),
        )
    return DPOTrainer(
        load(AutoModelForCausalLM, spec.model, weights_dtype(spec)),
        args=DPOConfig(**preference_arguments(spec)),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=lora(spec, "CAUSAL_LM"),
    )


def _ppo(spec: Spec) -> tuple[Any, dict[str, Any]]:
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer  # type: ignore[import-not-found]  # in 1.12.0

    tokenizer = AutoTokenizer.from_pretrained(spec.model, padding_side="left")
    prompts = [
        tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        for row in read_rows(spec)
    ]
    assert spec.reward is not None
    value, reward = (
        load(AutoModelForSequenceClassification, path, weights_dtype(spec), num_labels=1)
        for path in (spec.model, spec.reward)
    )
    torch.nn.init.zeros_(value.score.weight)  # our head starts at zero, too, so that the first losses are comparable
    arguments = common_arguments(spec) | {
        "total_episodes": spec.total_steps * spec.batch,
        "num_ppo_epochs": spec.ppo_epochs,
        "response_length": spec.max_new_tokens,
        "temperature": 1.0,
        "num_sample_generations": 0,
    }
    trainer = PPOTrainer(
        PPOConfig(**arguments),
        processing_class=tokenizer,
        model=load(AutoModelForCausalLM, spec.model, weights_dtype(spec)),
        ref_model=None,
        reward_model=reward,
        value_model=value,
        train_dataset=Dataset.from_list([{"input_ids": ids} for ids in prompts]),
        peft_config=lora(spec, "CAUSAL_LM"),
    )
    return trainer, _noted(ppo_trainer, tokenizer.pad_token_id)


def _noted(module: Any, pad: int) -> dict[str, Any]:
    """Record the first rollout: responses, log-probs under policy and reference (the first two calls), scores."""
    first: dict[str, Any] = {}
    calls: list[str] = []
    generation, logps_of, reward_of = module.batch_generation, module.selective_log_softmax, module.get_reward

    def batch_generation(model: Any, queries: torch.Tensor, *args: Any) -> Any:
        output = generation(model, queries, *args)
        if "responses" not in first:
            first["responses"] = [
                {"prompt": [token for token in query if token != pad], "response": row[len(query) :]}
                for query, row in zip(queries.tolist(), output[0].tolist(), strict=True)
            ]
        return output

    def selective_log_softmax(*args: Any) -> torch.Tensor:
        output = logps_of(*args)
        name = "old_logps" if "old_logps" not in first else "ref_logps"
        if name not in first:
            first[name] = output.float().tolist()
        return output

    def get_reward(*args: Any) -> Any:
        output = reward_of(*args)
        calls.append("value" if not calls else "reward")
        if len(calls) == 2:
            first["scores"] = output[1].float().tolist()
        return output

    module.batch_generation, module.selective_log_softmax = batch_generation, selective_log_softmax
    module.get_reward = get_reward
    return first


def _logged(trainer: Any) -> dict[str, float]:
    """Figures of the first log that ours also has."""
    names = ("logps/chosen", "logps/rejected", "mean_reward", "grad_norm", "objective/scores")
    logged = trainer.state.log_history[0]
    return {name: logged[name] for name in names if name in logged}
