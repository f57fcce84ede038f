"""A training run from a recipe: checked before anything is loaded, then trained, evaluated and saved."""

import errno
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig

from hf_align.algorithms import Algorithm
from hf_align.data.augment import augment
from hf_align.data.fingerprint import same_rows
from hf_align.data.layouts.recognition import trained_rows
from hf_align.data.sources import SPLITS, load_rows, load_stream
from hf_align.errors import UserError
from hf_align.evaluation.scorers import read_judge
from hf_align.experiments.recipe import CheckedRecipe, Recipe, check_recipe
from hf_align.files import ADAPTER_CONFIG, CONFIG, ENSEMBLE
from hf_align.models.sources import check_source
from hf_align.progress import Progress
from hf_align.rewards.named import read_function, read_reward
from hf_align.trainers.callbacks import evaluate, train_explained
from hf_align.trainers.checkpoints import RESUME, check_checkpoint, checkpoints_in, last_checkpoint
from hf_align.trainers.checks import check_best_metric, check_evaluation, check_place, check_reporters
from hf_align.trainers.kept import KeptTrainer
from hf_align.trainers.over_optimization import check_judge
from hf_align.trainers.recording import RecordingTrainer
from hf_align.trainers.stream import check_stream_options

LORA_DEFAULTS: dict[str, Any] = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
FURTHER_MODELS = ("ref_model", "reward", "judge", "eval_judge")
"""Keys of a recipe that a trainer takes as arguments, where they are given."""
NAMED = ("model", "ref_model", "train_dataset", "eval_dataset", "quantization")
"""Keys whose values are noted in the run's record."""
SHUFFLE_BUFFER = 10_000
"""Rows among which a stream is shuffled where a recipe doesn't say."""
RESULTS_OF_A_RUN = (ADAPTER_CONFIG, CONFIG, ENSEMBLE)


@dataclass
class Inputs:
    """Rows and checkpoint that a run starts from.

    Attributes:
        rows: `train_dataset` and perhaps `eval_dataset`.
        checkpoint: Checkpoint to resume from.
    """

    rows: dict[str, Dataset]
    checkpoint: Path | None


@dataclass
class Run:
    """A checked run, before anything is loaded.

    Attributes:
        algorithm: The algorithm.
        recipe: The recipe, for its keys' places.
        checked: The recipe's checked values.
        trainer: The trainer's class.
        args: The trainer's config.
        resume_last: Whether to resume from the latest checkpoint.
        notes: Lines to show before training: what became of the rows.
    """

    algorithm: Algorithm
    recipe: Recipe
    checked: CheckedRecipe
    trainer: type[Any]
    args: Any
    resume_last: bool
    notes: list[str] = field(default_factory=list)

    def read_data(self) -> dict[str, Dataset]:
        """Load `train_dataset` and perhaps `eval_dataset`.

        Raises:
            UserError: A data set doesn't exist or can't be read.
        """
        source = self.checked.source
        rows: dict[str, Any] = {
            f"{role}_dataset": load_rows(name, role, self.args.seed, self.algorithm.rows)
            for role in ("train", "eval")
            if (name := source[f"{role}_dataset"]) is not None and not (role == "train" and source.get("streaming"))
        }
        if source.get("streaming"):
            return {"train_dataset": self._stream(), **rows}
        if source.get("shuffle_buffer") is not None:
            where = self.recipe.where("shuffle_buffer")
            raise UserError(f"{where} is of streams, and streaming isn't on; leave it out, or set streaming to true")
        name = source["eval_dataset"]
        one_name = name == source["train_dataset"] and not Path(str(name)).is_file()
        if one_name and len(rows) == 2 and same_rows(*rows.values()):
            raise UserError(
                f"{self.recipe.where('eval_dataset')}: {name} has one split, which is trained on; name other rows, or "
                "leave it out"
            )
        return rows

    def _stream(self) -> Any:
        """The rows to train on as a stream, which is shuffled."""
        source, recipe, args = self.checked.source, self.recipe, self.args
        check_stream_options(args)
        if source.get("augment"):
            raise UserError(f"{recipe.where('augment')} needs all rows at once; leave it or streaming out")
        buffer = SHUFFLE_BUFFER if source["shuffle_buffer"] is None else source["shuffle_buffer"]
        if buffer < 0:
            raise UserError(f"{recipe.where('shuffle_buffer')} is {buffer}; give a number from 0 (not shuffled)")
        name = source["train_dataset"]
        return load_stream(name, "train_dataset", SPLITS["train"], seed=args.order_seed, buffer=buffer)

    def read_rewards(self) -> None:
        """Put functions for the names of the recipe's reward and judge, if the algorithm has them.

        Raises:
            UserError: One of them is wrong.
        """
        source, recipe = self.checked.source, self.recipe
        if "reward" not in source:
            return
        source["reward"] = read_reward(source["reward"], recipe.where("reward"))
        source["judge"] = read_judge(source["judge"], recipe.where("judge"))
        if source["judge"] is not None and "judge" not in inspect.signature(self.trainer.__init__).parameters:
            raise UserError(f"{recipe.where('judge')}: {self.algorithm.name} takes no judge; leave it out")
        check_judge(source["judge"], source["reward"], self.args, source["eval_dataset"])

    def lora(self) -> LoraConfig | None:
        """Make the config of the recipe's adapter, if any."""
        return None if self.checked.lora is None else LoraConfig(**{**LORA_DEFAULTS, **self.checked.lora})

    def find_checkpoint(self) -> Path | None:
        """The checkpoint to resume from, or None to start.

        Raises:
            UserError: There is no such checkpoint, or the output folder holds another run.
        """
        args, recipe, directory = self.args, self.recipe, Path(self.args.output_dir)
        if self.resume_last or args.resume_from_checkpoint is not None:
            named = True if self.resume_last else args.resume_from_checkpoint
            return check_checkpoint(named, args, recipe.where(RESUME))
        if checkpoints_in(directory) or any((directory / name).exists() for name in RESULTS_OF_A_RUN):
            raise UserError(
                f"{recipe.where('output_dir')}: {directory} already holds a training run; choose another folder, or "
                f"resume it with --{RESUME} true"
            )
        return None

    def execute(self, inputs: Inputs, progress: Progress) -> None:
        """Train, evaluate if there is an `eval_dataset`, and save.

        Raises:
            UserError: The model can't be loaded, or the optimizer or schedule can't be created.
            KeyboardInterrupt: After Ctrl-C; during training a checkpoint is saved first.
        """
        run_experiment(self, inputs, progress)

    def after_ctrl_c(self, command: str) -> str:
        """How to go on after Ctrl-C, given the command line."""
        if last_checkpoint(Path(self.args.output_dir)) is None:
            return "Nothing was saved yet; the same command starts again."
        # The last of repeated flags counts, so this replaces an earlier --resume_from_checkpoint.
        return f"Resume with: {command} --{RESUME} true"


def prepare(algorithm: Algorithm, recipe: Recipe) -> Run:
    """Check a recipe's keys and values, and make the trainer's config from it.

    Raises:
        UserError: A key or value is wrong.
    """
    trainer, config_class = algorithm.load()
    resume_last = recipe.values.get(RESUME) is True
    if isinstance(recipe.values.get(RESUME), bool):  # no folder: the newest checkpoint, or none
        recipe.values.pop(RESUME)
    checked = check_recipe(recipe, config_class, LoraConfig, algorithm.needs, algorithm.rows)
    try:
        args = make_config(algorithm.name, config_class, checked)
    except UserError as error:
        option, rest = re.match(r"([\w.]*)(.*)", str(error), re.DOTALL).groups()  # type: ignore[union-attr]
        if option not in recipe.values:
            raise
        raise UserError(f"{recipe.where(option)}{rest}") from None
    return algorithm.load_run()(algorithm, recipe, checked, trainer, args, resume_last)


def make_config(name: str, config_class: type, checked: CheckedRecipe) -> Any:
    """Make the algorithm's config from a checked recipe; the config class's errors become `UserError`s."""
    try:
        return config_class(**{"disable_tqdm": True, **checked.config})
    except UserError:
        raise
    except (ValueError, TypeError, ImportError) as error:
        # Trainer's enums name the value but not the option.
        refused = str(error).partition(" is not a valid ")[0]
        option = next((option for option, value in checked.config.items() if value == refused), name)
        raise UserError(f"{option}: {error}") from None


def load_inputs(run: Run) -> Inputs:
    """Check what Trainer would only notice once the model is loaded, resolve the reward and load the rows.

    Raises:
        UserError: An option, the data, the output folder or a model's name is wrong.
    """
    check_inputs(run)
    checkpoint = run.find_checkpoint()
    return Inputs(load_run_rows(run), checkpoint)


def check_inputs(run: Run) -> None:
    """Check what Trainer would only notice once the model is loaded, and resolve the reward.

    Raises:
        UserError: An option or the output folder is wrong.
    """
    args, recipe, source = run.args, run.recipe, run.checked.source
    check_reporters(args, recipe.where("report_to"))
    run.read_rewards()
    check_evaluation(args, source["eval_dataset"])
    check_best_metric(args, source["eval_dataset"], (*args.eval_metrics, *getattr(args, "further_metrics", ())))
    check_place(Path(args.output_dir), recipe.where("output_dir"))


def load_run_rows(run: Run) -> dict[str, Dataset]:
    """Load the rows, and augment those of training where the recipe asks for it.

    Raises:
        UserError: The data or a model's name is wrong.
    """
    source, augmentation = run.checked.source, _augmentation(run)
    rows = run.read_data()
    for name in (source["model"], source.get("ref_model")):
        if name is not None:
            check_source(name)
    if augmentation:
        plain = run.algorithm.rows == "pairs"
        rows["train_dataset"] = trained_rows(rows["train_dataset"], "train_dataset", plain=plain)
        rows["train_dataset"] = augment(rows["train_dataset"], **augmentation, seed=run.args.seed, name="train_dataset")
    return rows


def _augmentation(run: Run) -> dict[str, Any]:
    """Arguments of `augment`, with functions for their names; empty where the recipe asks for nothing."""
    values, recipe = run.checked.source.get("augment") or {}, run.recipe
    if values.get("interpolation") and run.algorithm.rows == "pairs":
        raise UserError(
            f"{recipe.where('augment.interpolation')} makes soft labels, which {run.algorithm.name} doesn't read; "
            "leave it out, or train a reward model."
        )
    wanted = {key: value for key, value in values.items() if value}
    return {
        key: read_function(value, recipe.where(f"augment.{key}")) if isinstance(value, str) else value
        for key, value in wanted.items()
    }


def run_experiment(run: Run, inputs: Inputs, progress: Progress) -> Any:
    """Train one model and return its trainer; see `Run.execute`."""
    trainer = make_trainer(run, inputs.rows)
    train_explained(trainer, progress, run.algorithm.name, checkpoint=inputs.checkpoint)
    later = isinstance(trainer, KeptTrainer)  # the card, which tells the evaluation, too
    trainer.save_model(**{"card": False} if later else {})  # before anything that could fail
    metrics: dict[str, float] = {}
    if trainer.eval_dataset is not None:
        metrics = evaluate(trainer, progress, f"held-out {run.algorithm.rows}")
    if later and trainer.args.should_save:
        trainer.write_card(trainer.args.output_dir)
    trainer.save_state()
    if metrics:
        trainer.save_metrics("eval", metrics)
        shown = {name.removeprefix("eval_"): value for name, value in metrics.items() if "_per_second" not in name}
        progress.table(
            f"{run.algorithm.name}, held out",
            ["metric", "value"],
            [[name, f"{value:.4g}"] for name, value in shown.items()],
        )
    progress.line(f"saved in {trainer.args.output_dir}")
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    return trainer


def make_trainer(run: Run, rows: dict[str, Dataset]) -> Any:
    """Make the trainer, which loads the model."""
    source = run.checked.source
    with loading_errors(source["model"]):
        trainer = run.trainer(
            model=source["model"],
            args=run.args,
            peft_config=run.lora(),
            quantization_config=source["quantization"],
            **{key: source[key] for key in FURTHER_MODELS if source.get(key) is not None},
            **rows,
        )
    if isinstance(trainer, RecordingTrainer):
        trainer.describe_recipe({name: source[name] for name in NAMED if isinstance(source.get(name), str)})
    return trainer


@contextmanager
def loading_errors(model: str) -> Iterator[None]:
    """Report a model that can't be loaded in one line: an unreachable Hub, or a file that isn't a model."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"model: {model} can't be loaded: {str(error).splitlines()[0]}") from None
