"""NaN put into a run: into one micro-batch, gradient, reward or weight, on one process, at one step.

`python -m torch.distributed.run --nproc_per_node 2 -m tests.trainers.injections OUT` writes the outcome of each.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import TrainerCallback

from hf_align.errors import UserError
from hf_align.models.reward import RewardModel
from hf_align.trainers.dpo import DPOConfig, DPOTrainer
from hf_align.trainers.ppo.config import PPOConfig
from hf_align.trainers.ppo.trainer import PPOTrainer
from hf_align.trainers.reward import RewardConfig, RewardTrainer
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer
from tests.trainers.pairs import options, pairs
from tests.trainers.toy import toy_model, toy_reward, toy_tokenizer, varied_prompts

STEPS, ACCUMULATION = 4, 2
LENGTH = 3


@dataclass(frozen=True)
class Injection:
    """One NaN.

    Attributes:
        trainer: Whose run.
        kind: "loss" (and so its gradient), "constant" (a NaN in the loss that no gradient sees), "gradient", "reward",
            "weight" (before the step), "values" (a weight of the value head) or "late" (a weight after the step).
        step: The step, from 0, in which it comes up.
        micro: The micro-batch of the step.
        rank: The process.
    """

    trainer: Literal["dpo", "reward", "ppo"]
    kind: str
    step: int = 1
    micro: int = 0
    rank: int = 0


ONE_PROCESS = [
    Injection(trainer, kind, step, micro)
    for trainer in ("dpo", "reward")
    for kind, step, micro in (
        ("loss", 0, 0),
        ("loss", 1, 1),
        ("loss", 3, 0),
        ("constant", 1, 1),
        ("gradient", 1, 0),
        ("weight", 1, 0),
        ("late", 1, 0),
    )
] + [
    Injection("ppo", kind, step, micro)
    for kind, step, micro in (
        ("loss", 0, 0),
        ("loss", 1, 1),
        ("loss", 2, 0),
        ("constant", 1, 0),
        ("gradient", 1, 1),
        ("reward", 0, 0),
        ("reward", 2, 0),
        ("weight", 0, 0),
        ("weight", 1, 0),
        ("weight", 2, 0),
        ("values", 2, 0),
        ("late", 1, 0),
    )
]
TWO_PROCESSES = [
    Injection(trainer, kind, step, micro, rank)
    for trainer in ("dpo", "reward")
    for kind, step, micro, rank in (
        ("loss", 0, 0, 1),
        ("loss", 1, 1, 0),
        ("constant", 1, 0, 1),
        ("gradient", 1, 1, 1),
        ("weight", 1, 0, 1),
        ("late", 1, 0, 1),
    )
] + [
    Injection("ppo", kind, step, micro, rank)
    for kind, step, micro, rank in (
        ("loss", 1, 1, 1),
        ("constant", 0, 1, 0),
        ("gradient", 1, 0, 1),
        ("reward", 0, 0, 1),
        ("reward", 2, 0, 0),
        ("weight", 1, 0, 1),
        ("values", 2, 0, 1),
        ("late", 1, 0, 1),
    )
]


@dataclass
class Outcome:
    """Outcome of an injection on this process.

    Attributes:
        found: The step, from 0, at which the log has it; None: nowhere.
        error: The message that ended the run.
        checkpoint: The last step that was saved.
        broken: Saved files with numbers that aren't finite.
    """

    found: int | None
    error: str
    checkpoint: int
    broken: list[str]


class Injector(TrainerCallback):
    """Puts the NaN in, once."""

    def __init__(self, injection: Injection) -> None:
        self.injection = injection
        self.trainer: Any = None
        self.here = PartialState().process_index == injection.rank
        self.step, self.micro = 0, -1

    def watch(self, trainer: Any) -> None:
        """Stand between the trainer and its loss."""
        self.trainer, inner = trainer, trainer.compute_loss

        def compute_loss(*args: Any, **kwargs: Any) -> Any:
            self.micro += 1
            loss = inner(*args, **kwargs)
            if self.due("loss"):
                return loss * math.nan
            return loss + math.nan if self.due("constant") else loss

        trainer.compute_loss = compute_loss
        first = next(weight for weight in trainer.model.parameters() if weight.requires_grad)
        first.register_hook(lambda gradient: gradient * math.nan if self.due("gradient") else gradient)
        trainer.add_callback(self)

    def due(self, kind: str, *, any_micro: bool = False) -> bool:
        """Whether now is the time, on this process."""
        injection = self.injection
        now = any_micro or self.micro == injection.micro
        return self.here and now and (kind, self.step) == (injection.kind, injection.step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.step, self.micro = state.global_step, -1
        if self.due("weight", any_micro=True):
            self._break(self.trainer.accelerator.unwrap_model(self.trainer.model))
        if self.due("values", any_micro=True):
            self._break(self.trainer.accelerator.unwrap_model(self.trainer.model).value_head)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.due("late", any_micro=True):
            self._break(self.trainer.accelerator.unwrap_model(self.trainer.model))

    def _break(self, module: nn.Module) -> None:
        list(module.parameters())[1].data.view(-1)[0] = math.nan  # behind the embedding, of which a row may go unused


def build(injection: Injection, out: Path, model: str | None = None, **changes: Any) -> tuple[Any, Injector]:
    """A run of four steps of two micro-batches, a checkpoint a step; PPO's rollouts are of two steps."""
    injector = Injector(injection)
    common = options(
        out,
        per_device_train_batch_size=1 if injection.trainer != "ppo" else 2,
        gradient_accumulation_steps=ACCUMULATION,
        max_steps=STEPS,
        save_strategy="steps",
        save_steps=1,
        optim="adamw_torch",
        learning_rate=0.01,
    )
    common |= changes
    if injection.trainer == "ppo":
        scores = toy_reward(LENGTH)

        def reward(prompts: list[str], responses: list[str]) -> list[float]:
            given = scores(prompts, responses)
            return [*given[:-1], math.nan] if injector.due("reward", any_micro=True) else given

        trainer: Any = PPOTrainer(
            toy_model(),
            args=PPOConfig(**common, num_mini_batches=2, num_ppo_epochs=1, max_new_tokens=LENGTH),
            train_dataset=varied_prompts(12),
            processing_class=toy_tokenizer(),
            reward=reward,
        )
    elif injection.trainer == "reward":
        folder = model or str(out / "base")
        if model is None and PartialState().is_main_process:
            save_tiny(out / "base")
        PartialState().wait_for_everyone()
        backbone = RewardModel.from_backbone(folder)
        trainer = RewardTrainer(backbone, args=RewardConfig(**common), train_dataset=pairs())
    else:
        trainer = DPOTrainer(
            tiny_model(), args=DPOConfig(**common), train_dataset=pairs(), processing_class=tiny_tokenizer()
        )
    injector.watch(trainer)
    return trainer, injector


def run(injection: Injection, out: Path, model: str | None = None, **changes: Any) -> tuple[Outcome, Any]:
    """Train with the injection and return the outcome and the trainer."""
    trainer, _ = build(injection, out, model, **changes)
    error = ""
    try:
        trainer.train()
        trainer.save_model()
    except UserError as refused:
        error = str(refused)
    PartialState().wait_for_everyone()
    found = [int(log["nonfinite/step"]) - 1 for log in trainer.state.log_history if "nonfinite/step" in log]
    saved = [int(folder.name.rpartition("-")[2]) for folder in out.glob("checkpoint-*")]
    return Outcome(next(iter(found), None), error, max(saved, default=0), sorted(broken_files(out))), trainer


def broken_files(folder: Path) -> Iterator[str]:
    """Saved files with a number that isn't finite, or a rollout's with nothing in it."""
    for file in folder.rglob("*"):
        if file.suffix == ".safetensors":
            tensors: Any = load_file(file)
        elif file.name in ("optimizer.pt", "scheduler.pt"):
            tensors = torch.load(file, weights_only=True)
        elif file.name == "ppo_state.json":
            tensors = json.loads(file.read_text())
        else:
            continue
        if not _finite(tensors):
            yield str(file.relative_to(folder))


def _finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return bool(value.isfinite().all()) if value.is_floating_point() else True
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def held(injection: Injection, outcome: Outcome) -> bool:
    """Whether it was found in its step, ended the run there, and left only what was sound before."""
    sound = not outcome.broken and bool(outcome.error)
    return sound and outcome.found == injection.step and outcome.checkpoint == injection.step


def report(injections: list[Injection], out: Path) -> list[dict[str, Any]]:
    """Run all, on as many processes as there are; every process must come to the same."""
    rows = []
    for number, injection in enumerate(injections):
        started = time.perf_counter()
        outcome, trainer = run(injection, out / str(number), save_total_limit=1)
        everyone = gather_object([asdict(outcome) | {"held": held(injection, outcome)}])
        together = all(each["held"] for each in everyone)
        rows.append(asdict(injection) | {"found": outcome.found, "held": together, "processes": everyone})
        rows[-1]["seconds"] = round(time.perf_counter() - started, 2)
        del trainer
    return rows


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    processes = PartialState(cpu=True).num_processes
    result = report(ONE_PROCESS if processes == 1 else TWO_PROCESSES, folder)
    if PartialState().is_main_process:
        (folder / "report.json").write_text(json.dumps(result, indent=1))
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
