"""Criteria that end a stage, and the KL from the start."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from hf_align.trainers import Stage, Until
from hf_align.trainers.hybrid.probe import Probe, probe_prompts
from hf_align.trainers.hybrid.until import SpendsKL, Stalls
from tests.trainers.hybrid.run import LENGTH, hybrid, ppo, rows, save_toy, shared
from tests.trainers.toy import EOS, toy_mdp, toy_model


def course(criterion: Stalls, values: list[float], args: TrainingArguments) -> int | None:
    """The evaluation that ends the training, from 1."""
    control = TrainerControl()
    for number, value in enumerate(values, start=1):
        criterion.on_evaluate(args, TrainerState(global_step=number), control, metrics={"eval_judge": value})
        if control.should_training_stop:
            assert control.should_save
            return number
    return None


@pytest.fixture(scope="module")
def args(tmp_path_factory: pytest.TempPathFactory) -> TrainingArguments:
    return TrainingArguments(str(tmp_path_factory.mktemp("out")), use_cpu=True)


@pytest.mark.parametrize(
    ("patience", "change", "greater", "values", "ended"),
    [
        (1, 0.0, True, [1.0, 2.0, 2.0], 3),
        (2, 0.0, True, [1.0, 0.5, 1.5, 1.5, 1.4], 5),
        (2, 0.0, False, [3.0, 2.0, 2.5, 1.0, 1.0], None),
        (2, 0.5, True, [1.0, 1.4, 1.5, 9.0], 3),  # .5 more is no more than the change
        (1, 0.0, True, [1.0, float("nan"), 2.0], 2),
    ],
)
def test_a_metric_stalls(
    patience: int, change: float, greater: bool, values: list[float], ended: int | None, args: TrainingArguments
):
    assert course(Stalls("judge", patience, change, greater), values, args) == ended


def test_a_resumed_run_goes_on_counting(args: TrainingArguments):
    one = Stalls("judge", 2, 0.0, True)
    assert course(one, [1.0, 0.5], args) is None
    again = Stalls("judge", 2, 0.0, True)
    saved: Any = {"Stalls": one.state()}
    state = TrainerState(global_step=2, stateful_callbacks=saved)
    again.on_train_begin(args, state, TrainerControl())
    again.on_evaluate(args, TrainerState(global_step=2), TrainerControl(), metrics={"eval_judge": 0.4})  # eval_on_start
    assert again.waited() == 1 and again.why_over() is None
    again.on_evaluate(args, TrainerState(global_step=3), TrainerControl(), metrics={"eval_judge": 0.4})
    assert again.why_over() == "judge did not improve in 2 evaluations"
    again.on_train_begin(args, TrainerState(global_step=0, stateful_callbacks=saved), TrainerControl())
    assert again.points == []


def test_kl_is_spent_at_the_first_measurement_that_reaches_the_limit(args: TrainingArguments):
    measured = iter([0.5, 1.0])
    criterion, control = SpendsKL(1.0, 2, 0.2, lambda: next(measured)), TrainerControl()
    steps = []
    for step in range(1, 7):
        criterion.on_step_end(args, TrainerState(global_step=step), control)
        steps.append(step)
        if control.should_training_stop:
            break
    assert steps[-1] == 4 and criterion.points == [[2, 0.5], [4, 1.0]]
    assert criterion.why_over() == "KL from the start is 1 of 1 nats"
    assert SpendsKL(1.0, 2, 1.5, lambda: 0.0).why_over() is not None


@torch.no_grad()
def exact_kl(policy: Any, start: Any, prompt: list[int]) -> float:
    """Over all responses of the toy language."""

    def logp(model: Any, response: tuple[int, ...]) -> torch.Tensor:
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
        return logits.double().log_softmax(-1).gather(1, torch.tensor(response)[:, None]).sum()

    responses = toy_mdp(LENGTH).responses
    ours = torch.stack([logp(policy, each) for each in responses])
    theirs = torch.stack([logp(start, each) for each in responses])
    assert EOS in responses[0] and ours.exp().sum().item() == pytest.approx(1, abs=1e-6)
    return float((ours.exp() * (ours - theirs)).sum())


def test_the_probe_estimates_the_kl_of_whole_responses(tmp_path: Path):
    trainer = hybrid(
        save_toy(tmp_path / "toy"), tmp_path / "out", [Stage("dpo", shared(learning_rate=0.1, max_steps=3))]
    )
    trainer.train()
    probe = Probe(["a"] * 1024, LENGTH, seed=0)
    found = probe.kl(trainer.trainer, trainer.stages[0], None)
    exact = exact_kl(trainer.model.eval(), toy_model(), [1])
    assert exact > 0.05 and found == pytest.approx(exact, rel=0.15)
    assert probe.kl(trainer.trainer, trainer.stages[0], None) == found


def test_prompts_are_the_first_different_ones():
    stages = [SimpleNamespace(rows={"train_dataset": rows()})]
    assert probe_prompts(stages, [None, [{"prompt": "x"}, {"prompt": "x"}, {"prompt": "y"}]], 2) == ["x", "y"]  # type: ignore[arg-type]
    assert probe_prompts(stages, [[{"text": "x"}]], 3) == ["a", "a b", "b c"]  # type: ignore[arg-type]


def test_a_budget_ends_stages_and_leaves_out_the_rest(tmp_path: Path):
    toy = save_toy(tmp_path / "toy")
    fast = shared(max_steps=8, learning_rate=0.1, save_steps=4)
    stages = [Stage("dpo", fast), Stage("ipo", fast, until=Until(kl=0.2)), Stage("ppo", ppo())]
    trainer = hybrid(toy, tmp_path / "out", stages, kl_budget=0.3, kl_every=1)
    state = trainer.train()
    first, second = state["stages"][:2]
    assert first["kl_at_start"] == 0 and first["kl_left"] == 0.3
    assert first["kl_at_end"] >= 0.3 and first["steps"] < 8 and "KL from the start is" in first["ended"]
    assert second["status"] == "left out" and "ppo" not in str(state["stages"])
    assert state["left_out"] == ["stage 2 (ipo)", "stage 3 (ppo)"]
    assert "Left out" in (tmp_path / "out" / "report.html").read_text()
    assert hybrid(toy, tmp_path / "out", stages, kl_budget=0.3, kl_every=1).train(resume_from_checkpoint=True) == state
