"""The watch for over-optimisation: the reward and an independent judge along KL, at every evaluation of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.utils import logging

from hf_align.errors import UserError
from hf_align.evaluation.over_optimization import Course, fall_from_best, is_over_optimized
from hf_align.fields import as_written
from hf_align.files import write_json
from hf_align.report.over_optimization import PICTURE, draw_course
from hf_align.rewards import Reward
from hf_align.rewards.reward import Part
from hf_align.rewards.vader import VADER, vader_judge
from hf_align.statistics import pearson

logger = logging.get_logger(__name__)

FILE = "over_optimization.json"
RESAMPLES = 1000
ALIKE = 10
"""Different scores from which an exact linear relation is no coincidence."""


class OverOptimizationCallback(TrainerCallback, ExportableState):
    """Records reward, judge and KL at every evaluation, and stops when the judge falls while the reward doesn't.

    A trainer that is given a `judge` adds it and calls `record`. It stops once, at `patience` evaluations in a row, the
    judge's mean is below its maximum by more than the 95% interval of the paired difference (same prompts, corrected
    for the number of evaluations that the maximum was chosen among), and the reward's is not below its own.

    `over_optimization.json` in the output folder has every prompt's KL, reward and judge's score for each evaluation,
    with means, intervals and the fitted form of Gao et al. (2023); at the end of the training `over_optimization.png`
    shows them. Its state is in the checkpoints: a resumed run decides as an uninterrupted one.

    Args:
        stop: Whether to stop the training; otherwise it warns.
        patience: Evaluations in a row that it takes.

    Example:
        >>> from peft import LoraConfig
        >>> from hf_align import PPOConfig, PPOTrainer
        >>> def length(prompts, responses):
        ...     return [float(len(response)) for response in responses]
        >>> trainer = PPOTrainer(
        ...     "HuggingFaceTB/SmolLM2-135M-Instruct",
        ...     args=PPOConfig(
        ...         "out",
        ...         max_steps=4,
        ...         per_device_train_batch_size=4,
        ...         max_new_tokens=4,
        ...         eval_strategy="steps",
        ...         eval_steps=4,
        ...         eval_on_start=True,
        ...         stop_on_over_optimization=True,
        ...     ),
        ...     train_dataset=[{"prompt": "The film was"}] * 4,
        ...     eval_dataset=[{"prompt": "The meal was"}] * 4,
        ...     peft_config=LoraConfig(task_type="CAUSAL_LM"),
        ...     reward=length,
        ...     judge="vader",
        ... )
        >>> trainer.train()
        >>> [point["at"] for point in trainer.over_optimization.points]
        [0, 4]
    """

    def __init__(self, stop: bool = True, patience: int = 2):
        self.stop, self.patience = stop, patience
        self.points: list[dict[str, Any]] = []
        self.figures: dict[str, Any] = {}
        self.warned = False
        self._resumed_at = 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds; JSON keeps every bit of a float."""
        return {
            "args": {"stop": self.stop, "patience": self.patience},
            "attributes": {"points": list(self.points), "warned": self.warned},
        }

    def record(self, step: int, kl: NDArray[Any], proxy: NDArray[Any], judge: NDArray[Any]) -> None:
        """Take the evaluation of a step: `[P]` figures of the responses to the same prompts each time."""
        table = np.stack([kl, proxy, judge]).astype(np.float64)
        if not np.isfinite(table).all():
            logger.warning(f"Step {step}: a reward or judge's score isn't finite; the evaluation is left out.")
            return
        if len(np.unique(table[1])) >= ALIKE and pearson(table[1], table[2]) > 1 - 1e-9:
            raise UserError(
                f"judge: its scores of {len(table[1])} responses are the reward's, up to scale and offset, so it can't "
                "tell when the reward misleads; give a judge that isn't the reward."
            )
        if len(table[2]) > 1 and not np.ptp(table[2]) and (not self.points or np.ptp(self.points[-1]["judge"])):
            logger.warning(
                f"Step {step}: judge gives every response the same score ({table[2][0]:g}), so it judges nothing and "
                "the watch for over-optimisation sees nothing; give another judge."
            )
        if step == self._resumed_at > 0:  # Trainer evaluates again where a run resumes with eval_on_start
            return
        self.points.append({"at": step, **dict(zip(("kl", "proxy", "judge"), table.tolist(), strict=True))})

    def course(self) -> Course:
        """The recorded evaluations."""
        first = self.points[0]
        spread = {f"{name}_sd": float(np.std(first[name])) for name in ("proxy", "judge")}
        return Course.from_json({"kind": "rl", **spread, "points": self.points})

    def why_over(self) -> str | None:
        """The reason why a stopped run has no steps left, or None."""
        if not (self.stop and self.points):
            return None
        course = self.course()
        if not is_over_optimized(course.proxy, course.judge, self.patience):
            return None
        return (
            "was stopped as over-optimised; raise over_optimization_patience, or set stop_on_over_optimization to "
            "False, to continue"
        )

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Go on with the checkpoint's evaluations, or start anew."""
        saved: Any = (state.stateful_callbacks or {}).get(type(self).__name__)  # type: ignore[union-attr]
        self.points, self.warned, self._resumed_at = [], False, state.global_step
        if state.global_step and saved is not None:
            attributes = (saved[0] if isinstance(saved, list) else saved)["attributes"]
            self.points, self.warned = list(attributes["points"]), attributes["warned"]

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the course, and stop or warn where the run is over-optimised."""
        if not self.points or self.points[-1]["at"] != state.global_step:
            return
        course = self.course()
        if is_main := state.is_world_process_zero:
            self.figures = course.figures(resamples=RESAMPLES)
            write_json(Path(str(args.output_dir), FILE), {"figures": self.figures, "course": course.to_json()})
        if not is_over_optimized(course.proxy, course.judge, self.patience):
            return
        if is_main and not self.warned:
            logger.warning(self._message(course, state.global_step, args.load_best_model_at_end))
        self.warned = True
        control.should_training_stop = control.should_training_stop or self.stop

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw the course."""
        if self.figures and state.is_world_process_zero:
            draw_course(self.figures, Path(str(args.output_dir), PICTURE))

    def _message(self, course: Course, step: int, puts_back: bool) -> str:
        fall = fall_from_best(course.judge)
        best, last = (float(course.judge[:, place].mean()) for place in (fall.best, -1))
        kls = course.kl.mean(0)
        said = (
            f"Step {step}: over-optimised. The judge has fallen from {best:.3g} at step {course.at[fall.best]} (KL "
            f"{kls[fall.best]:.3g}) to {last:.3g} (KL {kls[-1]:.3g}), and the reward hasn't."
        )
        if not self.stop:
            return f"{said} stop_on_over_optimization=True would end the training here."
        back = "The best checkpoint by metric_for_best_model is put back." if puts_back else _PUT_BACK
        return f"{said} Training stops. {back}"


_PUT_BACK = (
    "The weights stay those of this step; load_best_model_at_end=True with metric_for_best_model='judge' would put the "
    "best ones back."
)


def check_judge(
    judge: Any, reward: Any, args: Any, eval_dataset: Any, name: str = "judge", trained_by: str = "reward"
) -> None:
    """Refuse a judge that can't watch the run, before anything is loaded.

    Args:
        judge: As given to the trainer; None for no judge.
        reward: The training's reward, or its judge of pairs.
        args: The trainer's config.
        eval_dataset: Its data set, or the name of one.
        name: The argument that the judge is, for messages.
        trained_by: The argument that `reward` is, likewise.

    Raises:
        UserError: Options ask for a judge and there is none, there is nothing for it to score, or it is the reward.
    """
    stops, metric = getattr(args, "stop_on_over_optimization", False), getattr(args, "metric_for_best_model", None)
    if judge is None:
        if stops:
            raise UserError(
                f"stop_on_over_optimization is True and there is no {name}; give one that isn't the {trained_by}."
            )
        if metric is not None and metric.removeprefix("eval_") == "judge":
            raise UserError(
                f"metric_for_best_model is 'judge' and there is no {name}; give one that isn't the {trained_by}."
            )
        return
    if eval_dataset is None or isinstance(eval_dataset, dict):
        raise UserError(f"{name} scores the responses to held-out prompts; give one eval_dataset.")
    if stops and as_written(args.eval_strategy) == "no":
        raise UserError(
            "stop_on_over_optimization decides at evaluations and eval_strategy is 'no'; set it to 'steps', and "
            "eval_steps."
        )
    if shared := _identities(judge) & _identities(reward):
        same = sorted(text for kind, text in shared if kind != "object") or ["the same object"]
        other = "a reward model trained on other data" if VADER in same else VADER
        raise UserError(
            f"{name} is (part of) the {trained_by} itself: {same[0]}; give an independent one, such as {other}."
        )


def _identities(reward: Any) -> set[tuple[str, str]]:
    """What tells a reward's members apart: their object, code or folder."""
    reward = getattr(reward, "reward", reward)  # of a judge that goes by one
    entries: Sequence[Any] = reward.members if isinstance(reward, Reward) else reward
    if not isinstance(entries, list):
        entries = [entries]
    found = set()
    for entry in entries:
        source = entry.source if isinstance(entry, Part) else entry
        if isinstance(entry, tuple):
            source = next((part for part in entry if not isinstance(part, int | float)), None)
        if source is vader_judge:
            found.add(("name", VADER))
            continue
        if isinstance(source, str | os.PathLike):
            found.add(("path", str(Path(source).resolve()) if Path(source).exists() else str(source)))
            continue
        found.add(("object", str(id(source))))
        code, name = getattr(source, "__code__", None), getattr(source, "__qualname__", "<")
        if code is not None and "<" not in name:  # a lambda or an inner function may close over anything
            found.add(("function", f"{code.co_filename}:{name}"))
        model = getattr(source, "model", None)
        path = getattr(model, "name_or_path", None)
        # An adapter's model has the name of its base, which reward and judge may share.
        if isinstance(path, str) and Path(path).exists() and not isinstance(model, PeftModel):
            found.add(("path", str(Path(path).resolve())))
    return found
