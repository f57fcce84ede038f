"""A stage of a hybrid run, from the policy that it is handed to the policy that it hands over.

StageRunner.run
    Backbone.policy_for      what the stage starts from (backbone)
    _build                   its own trainer, on that
    _begin                   recorded in hybrid.json (state); left out where no KL is left
    train                    up to its last step or its criterion (until), from its last checkpoint
    _close                   its policy saved whole, evaluated, recorded as done
"""

from __future__ import annotations

import dataclasses
import inspect
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from transformers import PreTrainedTokenizerBase, set_seed

from hf_align.files import whole_folder, write_json
from hf_align.model_cards.evaluations import NOT_RESULTS
from hf_align.progress import Progress, Silent
from hf_align.tracking import RunRecord
from hf_align.trainers.callbacks import evaluate, train_explained
from hf_align.trainers.checkpoints import last_checkpoint
from hf_align.trainers.hybrid.backbone import MERGED, POLICY, Backbone
from hf_align.trainers.hybrid.config import HybridConfig
from hf_align.trainers.hybrid.plan import Planned, measures_kl
from hf_align.trainers.hybrid.probe import Probe
from hf_align.trainers.hybrid.state import DONE, LEFT_OUT, RUNNING, State
from hf_align.trainers.hybrid.until import Criterion, SpendsKL, Stalls
from hf_align.trainers.hybrid.words import describe_hand_over
from hf_align.trainers.resuming import Ends

HISTORY, FACTS_OF_STAGE = "history.json", "facts.json"


class StageRunner:
    """Trains the stages of one run.

    Args:
        args: Options of the run.
        stages: All of its stages.
        probe: Measures the KL from the start; None where nothing depends on it.
        tokenizer: The policy's.
        backbone: What stages are handed.
        state: What was done, and is recorded.
        run_record: The run's record of metrics, if it has one.
        progress: Receiver of progress; None for none.
        say: Takes lines about what happens.

    Attributes:
        trainer: The last stage's trainer, once it is through.
    """

    def __init__(
        self,
        args: HybridConfig,
        stages: Sequence[Planned],
        probe: Probe | None,
        tokenizer: PreTrainedTokenizerBase,
        backbone: Backbone,
        state: State,
        *,
        run_record: RunRecord | None,
        progress: Progress | None,
        say: Callable[[str], None],
    ):
        self.args, self.stages, self.probe, self.tokenizer = args, stages, probe, tokenizer
        self.backbone, self.state, self.run_record = backbone, state, run_record
        self.progress, self.say = progress, say
        self.trainer: Any = None

    def run(self, stage: Planned, before: Planned | None) -> bool:
        """Train a stage, or go on with it.

        Args:
            stage: The stage.
            before: The one before it; None for the first.

        Returns:
            Whether there was KL left for it.
        """
        checkpoint = last_checkpoint(stage.folder)
        if checkpoint is None:
            shutil.rmtree(stage.folder, ignore_errors=True)  # of a run that ended before its first checkpoint
        self.say(f"[{stage.number}/{len(self.stages)}] {stage.algorithm.name}")
        policy = self.backbone.policy_for(stage, before)
        trainer = self._build(stage, policy)
        del policy
        if self.run_record is not None:
            trainer.record_in(self.run_record, stage.folder.name)
        record = self.state.record_of(stage.number) or self._begin(stage, trainer)
        if record["status"] == LEFT_OUT:
            return False
        criteria = self._criteria(stage, trainer, record)
        for each in criteria:
            trainer.add_callback(each)
        if self.progress is None:
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
        else:
            train_explained(trainer, self.progress, stage.algorithm.name, checkpoint=checkpoint)
        self._close(stage, trainer, criteria, record)
        if stage.number == len(self.stages):
            self.trainer = trainer
        else:
            self.backbone.take_back(stage, trainer.accelerator.unwrap_model(trainer.model))
        return True

    def _build(self, stage: Planned, policy: Any) -> Any:
        """A stage's trainer on its policy."""
        args = dataclasses.replace(stage.args)  # a new one also resets accelerate, whose precision may differ
        set_seed(args.seed)
        accepted = inspect.signature(stage.trainer.__init__).parameters
        given = {
            "model": policy,
            "ref_model": self.backbone.reference_for(stage),
            "args": args,
            "processing_class": self.tokenizer,
            "peft_config": stage.peft_config,
            "callbacks": [*stage.callbacks],
            **stage.rows,
            **stage.scoring,
        }
        return stage.trainer(**{name: value for name, value in given.items() if name in accepted and value is not None})

    def _begin(self, stage: Planned, trainer: Any) -> dict[str, Any]:
        """Record what a stage starts from; or that nothing of the KL budget is left for it and those behind it."""
        record: dict[str, Any] = {
            "number": stage.number,
            "algorithm": stage.algorithm.name,
            "folder": stage.folder.name,
            "status": RUNNING,
            "hand_over": describe_hand_over(stage),
        }
        if self._measures(stage):
            kl = self._kl(stage, trainer)
            record |= {"kl_at_start": kl}
            if self.args.kl_budget is not None:
                record["kl_left"] = max(0.0, self.args.kl_budget - kl)
                if not record["kl_left"]:
                    record |= {
                        "status": LEFT_OUT,
                        "ended": f"KL from the start is {kl:.3g} of {self.args.kl_budget:.3g}",
                    }
                    self.say(f"{stage.label} and what follows is left out: {record['ended']} nats.")
        self.state.put(record)
        return record

    def _measures(self, stage: Planned) -> bool:
        return self.probe is not None and measures_kl(stage)

    def _kl(self, stage: Planned, trainer: Any) -> float:
        return cast(Probe, self.probe).kl(trainer, stage, self.backbone.start_adapter(stage))

    def _criteria(self, stage: Planned, trainer: Any, record: dict[str, Any]) -> list[Criterion]:
        """The criteria that may end a stage early."""
        until, criteria = stage.until, list[Criterion]()
        if until is not None and until.metric is not None:
            greater = (
                until.metric.split("_")[-1] != "loss" if until.greater_is_better is None else until.greater_is_better
            )
            criteria.append(Stalls(until.metric, until.patience, until.min_change, greater))
        begun_at = record.get("kl_at_start")
        if begun_at is not None:
            limits = [self.args.kl_budget, None if until is None or until.kl is None else begun_at + until.kl]
            if given := [each for each in limits if each is not None]:
                measure = partial(self._kl, stage, trainer)
                criteria.append(SpendsKL(min(given), self.args.kl_every, begun_at, measure))
        return criteria

    def _close(
        self,
        stage: Planned,
        trainer: Any,
        criteria: list[Criterion],
        record: dict[str, Any],
    ) -> None:
        """Save a trained stage's policy, evaluate it and record it as done."""
        with whole_folder(stage.folder / POLICY) as unfinished:
            trainer.save_model(str(unfinished), _internal_call=True, card=False)
        trainer.record_model(stage.folder / POLICY)
        metrics: dict[str, float] = {}
        if trainer.eval_dataset is not None:
            progress = self.progress or Silent()
            with trainer.kept():
                metrics = evaluate(trainer, progress, f"held-out {stage.algorithm.rows}")
        name = f"{Path(self.args.output_dir).resolve().name}-{stage.folder.name}"
        if (facts := trainer.write_card(stage.folder / POLICY, model_name=name)) is not None:
            write_json(stage.folder / FACTS_OF_STAGE, facts.to_dict())
        write_json(stage.folder / HISTORY, trainer.state.log_history)
        ending = [each for each in trainer.callback_handler.callbacks if isinstance(each, Ends)]
        reasons = [reason for each in ending if (reason := each.why_over())]
        done = {
            "status": DONE,
            "steps": trainer.state.global_step,
            "of_steps": trainer.state.max_steps,
            "ended": reasons[0] if reasons else "last step",
            "evaluation": {name: value for name, value in metrics.items() if not name.endswith(NOT_RESULTS)},
        }
        if self._measures(stage):
            done["kl_at_end"] = self._kl(stage, trainer)
        spent = next((each for each in criteria if isinstance(each, SpendsKL)), None)
        self.state.put({**record, **done, "kl": [] if spent is None else spent.points})
        self.say(f"   {done['steps']} steps, ended by: {done['ended']}")
        self._rotate(stage)

    def _rotate(self, done: Planned) -> None:
        """Remove what `keep` doesn't ask for and no later stage needs."""
        if self.args.keep == "all":
            return
        for checkpoint in done.folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        if self.args.keep == "policies":
            return
        later = self.stages[done.number :]
        needed = {each.hand_over.base for each in later}
        start = (
            Path(self.backbone.start_folder())
            if any(each.hand_over.start in ("copy", "model") for each in later)
            else None
        )
        for stage in self.stages[: done.number - 1]:
            for name in (POLICY, MERGED):
                folder = stage.folder / name
                if stage.number not in needed | {done.hand_over.base} and folder != start and folder.exists():
                    shutil.rmtree(folder)
