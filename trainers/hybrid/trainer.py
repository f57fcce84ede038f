"""A hybrid run: algorithms one after another on one backbone, killed anywhere and resumed to the same weights.

train                    the stages that aren't done, each by a StageRunner (running)
_finish                  the last policy, its card and the report in output_dir
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftConfig
from transformers import PreTrainedTokenizerBase, TrainerCallback

from hf_align.errors import UserError
from hf_align.files import VALUE_ADAPTER_FOLDER, VALUE_MODEL_FOLDER, whole_files, write_text
from hf_align.hub.push import PushedFolder, push_model
from hf_align.model_cards import CARD_FILES, CardFacts, card_told, save_card
from hf_align.model_cards.files import FACTS
from hf_align.model_cards.hybrid import hybrid_facts
from hf_align.models.loading import load_policy
from hf_align.models.merging import merge_adapter
from hf_align.models.quantized import Quantization
from hf_align.models.trainable import tokenizer_of
from hf_align.models.wrapper import unwrapped
from hf_align.progress import Progress
from hf_align.report.hybrid import render_hybrid
from hf_align.tracking import RunRecord
from hf_align.tracking.schema import FILE as RECORD_FILE
from hf_align.trainers.checkpoints import RESUME
from hf_align.trainers.checks import check_output_dir
from hf_align.trainers.hybrid.backbone import MERGED, POLICY, Backbone
from hf_align.trainers.hybrid.config import HybridConfig, Shared, Stage
from hf_align.trainers.hybrid.messages import in_stage
from hf_align.trainers.hybrid.plan import Planned, plan_stages
from hf_align.trainers.hybrid.probe import make_probe
from hf_align.trainers.hybrid.rows import check_rows
from hf_align.trainers.hybrid.running import FACTS_OF_STAGE, HISTORY, StageRunner
from hf_align.trainers.hybrid.state import DONE, LEFT_OUT, STATE, State, settings_of

logger = logging.getLogger(__name__)

REPORT = "report.html"


class HybridTrainer:
    """Trains a policy with several algorithms, one after another, as one run.

    The base is loaded once and handed from stage to stage. With an adapter the reference is the same model without it,
    or with a frozen copy, so a hybrid takes the memory of its largest stage. Optimizer and schedule are new in each
    stage, as is PPO's value head. What each stage started from is recorded in `hybrid.json`, the card and the report.

    In `output_dir`: the final policy; `stage-1-dpo` and so on, each with its checkpoints, its final `policy` and its
    `history.json`; `hybrid.json`, `report.html` and the card. Killed anywhere, also between two stages, a run goes on
    with `train(resume_from_checkpoint=True)` to the same weights.

    Args:
        model: Hub id or folder of a language model or adapter, or a model object, which the run takes over.
        stages: The stages in order: `Stage`s, or names of algorithms. Default: DPO, PPO, IPO.
        args: Default: `HybridConfig("trainer_output")`.
        train_dataset: Rows of the stages that have none of their own.
        eval_dataset: Held-out rows of the stages that have none of their own.
        processing_class: The tokenizer. Default: the model's.
        reward: Reward of the stages that take one and have none of their own; see `PPOTrainer`.
        judge: A judge of evaluations that isn't the reward, for stages that sample; see `PPOTrainer`.
        callbacks: Callbacks of all stages.
        peft_config: A `LoraConfig` to train an adapter.
        quantization_config: "8bit", "4bit" or a `BitsAndBytesConfig`, for models given by name.
        progress: Receiver of progress; with it Ctrl-C saves a checkpoint after the running step. Default: silent.

    Attributes:
        stages: The stages with everything decided (`Planned`).
        state: The content of `hybrid.json`, after `train`.
        trainer: The last stage's trainer, once that has been trained in this process.

    Raises:
        UserError: A stage, a hand-over, an argument or a row is unusable; before anything is loaded, names the stage.

    Example:
        >>> from peft import LoraConfig
        >>> from hf_align import HybridConfig, HybridTrainer
        >>> from hf_align.trainers import Stage
        >>> def cheerful(prompts, responses):
        ...     return [float(response.count("!")) for response in responses]
        >>> rows = [{"prompt": "The film was", "chosen": " a joy!", "rejected": " too long."}] * 4
        >>> trainer = HybridTrainer(
        ...     "HuggingFaceTB/SmolLM2-135M-Instruct",
        ...     stages=[
        ...         Stage("dpo", {"max_steps": 1, "learning_rate": 5e-5}),
        ...         Stage("ppo", {"max_steps": 1, "per_device_train_batch_size": 4, "max_new_tokens": 4}),
        ...         Stage("ipo", {"max_steps": 1, "learning_rate": 5e-5}, reference="previous"),
        ...     ],
        ...     args=HybridConfig("out"),
        ...     train_dataset=rows,
        ...     reward=cheerful,
        ...     peft_config=LoraConfig(task_type="CAUSAL_LM"),
        ... )
        >>> trainer.train()
        >>> [record["steps"] for record in trainer.state["stages"]]
        [1, 1, 1]
    """

    def __init__(
        self,
        model: Any,
        stages: Sequence[Stage | str] | None = None,
        args: HybridConfig | None = None,
        *,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        reward: Any = None,
        judge: Any = None,
        callbacks: list[TrainerCallback] | None = None,
        peft_config: PeftConfig | None = None,
        quantization_config: Quantization = None,
        progress: Progress | None = None,
    ):
        self.args = args or HybridConfig()
        if not isinstance(self.args, HybridConfig):
            raise UserError(f"args is a {type(self.args).__name__}; give a HybridConfig.")
        if PartialState().num_processes > 1:
            raise UserError("a hybrid runs in one process; start it without `accelerate launch`.")
        self._shared = Shared(
            model=model,
            peft_config=peft_config,
            quantization=quantization_config,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            reward=reward,
            judge=judge,
            callbacks=list(callbacks or ()),
        )
        self.stages = plan_stages(stages, self.args, self._shared)
        self.processing_class = processing_class or tokenizer_of(model)
        check_rows(self.stages, self.processing_class)
        self._probe = make_probe(self.args, self.stages, (eval_dataset, train_dataset))
        self.progress = progress
        self.folder = Path(self.args.output_dir)
        self.trainer: Any = None
        self.state: dict[str, Any] = {}
        self._card_options: dict[str, Any] = {}

    # ---- the run ----

    def train(self, resume_from_checkpoint: bool | None = None) -> dict[str, Any]:
        """Run the stages that aren't done, and save the final policy with its card and report.

        Args:
            resume_from_checkpoint: True to go on with the run in `output_dir`.

        Returns:
            The content of `hybrid.json`.

        Raises:
            UserError: `output_dir` holds another run, or one with other settings; or a stage fails, which is named.
            KeyboardInterrupt: After Ctrl-C.
        """
        if not isinstance(resume_from_checkpoint, bool | None):
            raise UserError(f"{RESUME} is {resume_from_checkpoint!r}; give True to go on with the run in output_dir.")
        check_output_dir(self.args)
        settings = settings_of(self.args, self.stages, self._shared)
        state = State.open(self.folder, settings, resume=bool(resume_from_checkpoint))
        self.state = state.content
        if state.finished:
            self._say("Nothing is trained: the run is finished.")
            return self.state
        with self._recorded(settings, resume=bool(resume_from_checkpoint)) as record:
            self._run(state, record)
        if self.args.push_to_hub:
            self.push_to_hub()
        return self.state

    def _recorded(self, settings: dict[str, Any], *, resume: bool) -> AbstractContextManager[RunRecord | None]:
        """The run's record, as a context that ends it; None without `record`."""
        if not self.args.record:
            return nullcontext()
        config = {**dataclasses.asdict(self.args), **settings}
        base = {"name": settings["model_name"]}
        return RunRecord.start(self.folder, "hybrid", config=config, base=base, resume=resume)

    def _run(self, state: State, run_record: RunRecord | None) -> None:
        """Run the stages that aren't done."""
        backbone = Backbone(self._shared.model, self._shared.quantization, self.folder, self.stages, state.check_start)
        runner = StageRunner(
            self.args,
            self.stages,
            self._probe,
            self.processing_class,
            backbone,
            state,
            run_record=run_record,
            progress=self.progress,
            say=self._say,
        )
        before = None
        for stage in self.stages:
            record = state.record_of(stage.number) or {}
            if record.get("status") == LEFT_OUT:
                break
            if record.get("status") != DONE:
                with in_stage(stage.label):
                    if not runner.run(stage, before):
                        break
            before = stage
        self.trainer = runner.trainer
        assert before is not None
        self._finish(before, state)

    # ---- the end ----

    def _finish(self, last: Planned, state: State) -> None:
        """Put the last policy, the card and the report into `output_dir`."""
        merges = last.hand_over.form == "adapter" and last.hand_over.base > 0
        with whole_files(self.folder) as unfinished:
            policy = last.folder / POLICY
            if merges:  # its base is an intermediate of this run
                merge_adapter(policy, unfinished / MERGED, torch.float32)
                for path in (unfinished / MERGED).iterdir():
                    path.rename(unfinished / path.name)
                (unfinished / MERGED).rmdir()
            else:
                without = shutil.ignore_patterns(*CARD_FILES, FACTS)
                shutil.copytree(policy, unfinished, dirs_exist_ok=True, ignore=without)
        state.content["left_out"] = [each.label for each in self.stages[last.number :]]
        with card_told(self.folder):
            self.create_model_card()
            write_text(self.folder / REPORT, self.report())
        state.finish()
        self._say(f"saved in {self.folder}")

    def histories(self) -> dict[int, list[dict[str, Any]]]:
        """What the trainers of the stages that are done logged, by the stage's number."""
        paths = {each.number: each.folder / HISTORY for each in self.stages}
        return {number: json.loads(path.read_text()) for number, path in paths.items() if path.exists()}

    def report(self) -> str:
        """The run as a page: curves over all stages with marks where they change, hand-overs, evaluations."""
        return render_hybrid(self.state, self.histories())

    def create_model_card(self, **options: Any) -> None:
        """Write README.md, which tells all stages, into `output_dir`, unless you edited the one there.

        Args:
            options: `language`, `license`, `tags`, `model_name`, `finetuned_from`, `dataset_tags`, `dataset`, as the
                trainers' `create_model_card` takes them; later cards have them, too.

        Raises:
            UserError: No stage is done.
        """
        self._card_options |= options
        save_card(self.folder, self._facts())

    def _facts(self) -> CardFacts:
        done = [each for each in self.stages if (each.folder / FACTS_OF_STAGE).exists()]
        if not done:
            raise UserError("no stage is done, so there is nothing to write a card about; train() first.")
        of_stages = [CardFacts.from_dict(json.loads((each.folder / FACTS_OF_STAGE).read_text())) for each in done]
        last = done[-1].hand_over
        return hybrid_facts(
            self.folder,
            self.state["stages"],
            of_stages,
            merged=last.form == "adapter" and last.base > 0,
            base_model=self.args.hub_base_model,
            **self._card_options,
        )

    # ---- what is left ----

    @property
    def model(self) -> Any:
        """The final policy, once `train` is through: in memory, or loaded from `output_dir`."""
        if self.trainer is not None:
            return unwrapped(self.trainer.accelerator.unwrap_model(self.trainer.model), keep_peft=True)
        if not self.state.get("finished"):
            raise UserError("the run isn't finished, so there is no final policy; train() first.")
        return load_policy(self.folder, quantization=self._shared.quantization)

    def evaluate(self, eval_dataset: Any = None) -> dict[str, float]:
        """Evaluate the final policy as the last stage's trainer does.

        Args:
            eval_dataset: Rows as the last stage's. Default: those.

        Raises:
            UserError: The last stage wasn't trained in this process.
        """
        if self.trainer is None:
            raise UserError(
                "evaluate() is the last stage's, which wasn't trained in this process; measure the policy in "
                f"{self.folder} with `hf-align evaluate policy`, or see hybrid.json."
            )
        return self.trainer.evaluate(eval_dataset)

    def save_model(self, output_dir: str | None = None) -> None:
        """Save the final policy with its card. `train` has saved it in `args.output_dir`.

        Args:
            output_dir: Another folder.

        Raises:
            UserError: The run isn't finished.
        """
        if not self.state.get("finished"):
            raise UserError("the run isn't finished, so there is no final policy to save; train() first.")
        if output_dir is None or Path(output_dir).resolve() == self.folder.resolve():
            return
        with whole_files(output_dir) as unfinished:
            names = {STATE, REPORT, RECORD_FILE}
            for path in self.folder.iterdir():
                if path.is_file() and not path.name.startswith(".") and path.name not in names:
                    shutil.copy2(path, unfinished / path.name)
                elif path.name in (VALUE_ADAPTER_FOLDER, VALUE_MODEL_FOLDER):
                    shutil.copytree(path, unfinished / path.name)

    def push_to_hub(self, commit_message: str = "Upload a model with hf-align", **options: Any) -> PushedFolder:
        """Push the final policy with its card to `args.hub_model_id`.

        Args:
            commit_message: Message of the commit.
            options: `license`, `revision` and `token`, as `hf_align.hub.push_model` takes them.

        Raises:
            UserError: The run isn't finished, or the Hub or the connection fails.
        """
        if not (self.state.get("finished")):
            raise UserError("the run isn't finished, so there is no final policy to push; train() first.")
        return push_model(
            self.folder,
            self.args.hub_model_id or self.folder.resolve().name,
            base_model=self.args.hub_base_model,
            private=self.args.hub_private_repo,
            commit_message=commit_message,
            **options,
        )

    def _say(self, text: str) -> None:
        if self.progress is not None:
            self.progress.line(text)
        else:
            logger.info(text)
