"""PPO with each rollout engine: it trains, and its log-probs are those of the sampling."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import nn

from hf_align.models.wrapper import unwrapped
from hf_align.rollouts import ENGINES, Engine, SamplingRequest
from hf_align.rollouts.continuous import continuous_engine
from hf_align.rollouts.static import static_engine
from hf_align.trainers.ppo.trainer import PPOTrainer
from tests.rollouts.noting import note_continuous
from tests.tiny import save_tiny, tiny_tokenizer
from tests.trainers.ppo.test_trainer import logs_of, ppo

TEMPERATURE = 0.7


def trainer_of(folder: Path, changes: dict[str, Any] | None = None, **options: Any) -> PPOTrainer:
    """LoRA on a tiny language model, two prompts of different lengths with four responses each."""
    arguments: dict[str, Any] = {
        "model": save_tiny(folder / "base"),
        "peft_config": LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False),
        "train_dataset": [{"prompt": "hello"}, {"prompt": "good morning to you"}],
        "eval_dataset": [{"prompt": "good evening"}],
        "processing_class": tiny_tokenizer(),
        "reward": lambda prompts, responses, **columns: [float(text.count("e")) for text in responses],
    }
    defaults = {"num_samples": 4, "max_new_tokens": 8, "temperature": TEMPERATURE, "max_steps": 4}
    return ppo(folder / "out", {**arguments, **(changes or {})}, num_mini_batches=1, **{**defaults, **options})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_policy_trains_on_the_responses_of_every_engine(tmp_path: Path, engine: str):
    trainer = trainer_of(tmp_path, rollout_engine=engine)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    moved = [
        name for name, p in trainer.model.named_parameters() if name in before and not torch.equal(p, before[name])
    ]
    assert any("lora_" in name for name in moved) and any("value" in name for name in moved)
    assert logs_of(trainer)[0]["val/ratio"] == pytest.approx(1, abs=1e-5)
    assert trainer.evaluate()["eval_response/length"] >= 1


def noted_static(monkeypatch: pytest.MonkeyPatch, noted: dict[tuple[int, ...], list[float]]) -> Engine:
    """An engine that fills `noted`: by a response's tokens, the log-probs in the distributions they were drawn from."""

    def sampled(model: nn.Module, request: SamplingRequest) -> list[list[int]]:
        responses = []
        for prompt in request.prompt_of:  # one by one, so that the model's calls are the response's tokens
            steps: list[torch.Tensor] = []
            hook = unwrapped(model).register_forward_hook(
                lambda *call, steps=steps: steps.append(call[-1].logits[0, -1])
            )
            (ids,) = static_engine(model, replace(request, prompt_ids=[request.prompt_ids[prompt]], num_samples=1))
            hook.remove()
            logps = torch.log_softmax(torch.stack(steps) / request.temperature, -1)
            noted[tuple(ids)] = logps[range(len(ids)), ids].tolist()
            responses.append(ids)
        return responses

    return sampled


def noted_continuous(monkeypatch: pytest.MonkeyPatch, noted: dict[tuple[int, ...], list[float]]) -> Engine:
    """The same of transformers' manager."""
    note_continuous(monkeypatch, lambda result: noted.update({tuple(result.generated_tokens): list(result.logprobs)}))
    return continuous_engine


@pytest.mark.parametrize("engine_of", [noted_static, noted_continuous])
def test_log_probs_of_a_rollout_are_those_of_its_sampling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine_of: Any
):
    noted: dict[tuple[int, ...], list[float]] = {}
    trainer = trainer_of(tmp_path, num_ppo_epochs=1, max_steps=1)
    trainer.rollout_engine = engine_of(monkeypatch, noted)
    trainer.train()
    rollout = trainer.rollout
    assert rollout is not None and len(rollout.response_ids) == 8
    for row, response in enumerate(rollout.response_ids):
        scored = rollout.tokens["old_logps"][row, : len(response)]
        torch.testing.assert_close(scored, torch.tensor(noted[tuple(response)]), atol=1e-4, rtol=0)


def test_engines_agree_where_there_is_nothing_to_draw(tmp_path: Path):
    """At a temperature near 0 every engine takes the most likely tokens, so rollouts and log-probs are the same."""
    rollouts = []
    for engine in ENGINES:
        trainer = trainer_of(tmp_path / engine, rollout_engine=engine, temperature=1e-4, num_samples=1, max_steps=1)
        trainer.train()
        rollouts.append(trainer.rollout)
    first, second = rollouts
    assert first.response_ids == second.response_ids
    torch.testing.assert_close(first.tokens["old_logps"], second.tokens["old_logps"], atol=1e-3, rtol=0)


def test_an_engine_of_ones_own_samples_for_training_and_evaluation(tmp_path: Path):
    asked: list[tuple[int, int]] = []
    adapters: list[bool] = []

    def scripted(model: nn.Module, request: SamplingRequest) -> list[list[int]]:
        asked.append((len(request.prompt_ids), request.num_samples))
        adapters.append(model.active_adapter == "default" and not model.training)  # type: ignore[operator]
        letters = tiny_tokenizer()("she sees me here").input_ids
        return [letters[: 3 + row] for row in range(len(request.prompt_of))]

    trainer = trainer_of(tmp_path)
    trainer.rollout_engine = scripted
    trainer.train()
    assert trainer.rollout is not None
    assert sorted(map(len, trainer.rollout.response_ids)) == [3, 4, 5, 6, 7, 8, 8, 8], "8 is the length limit"
    trainer.evaluate()
    assert asked == [(2, 4), (2, 4), (1, 1)] and all(adapters)
    assert [sample["response"] for sample in trainer.eval_samples] == ["she"]
