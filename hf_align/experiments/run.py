"""`hf-align sft | reward | dpo | ipo | ppo`: one training run from a recipe."""

import argparse
import errno
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.data.sources import RowKind, load_rows
from hf_align.errors import Interrupted, UserError
from hf_align.experiments.recipe import REF_MODEL, REWARD, CheckedRecipe, Recipe, check_recipe, dump_recipe, read_recipe
from hf_align.models.sources import check_source
from hf_align.planning.run import dry_run
from hf_align.rewards.named import read_reward
from hf_align.trainers.callbacks import evaluate, train
from hf_align.trainers.checkpoints import RESUME, check_checkpoint, last_checkpoint
from hf_align.trainers.checks import check_best_metric, check_evaluation, check_place


@dataclass(frozen=True)
class Training:
    """What a training command is made of.

    Attributes:
        module: Where trainer and config are imported from.
        trainer: The trainer's name.
        config: The config's name.
        rows: What it trains on.
        keys: Its recipe keys besides `SOURCE_KEYS`.
    """

    module: str
    trainer: str
    config: str
    rows: RowKind = "pairs"
    keys: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> tuple[type, type]:
        """The trainer's class and the config's."""
        module = import_module(self.module)
        return getattr(module, self.trainer), getattr(module, self.config)


TRAININGS = {
    "sft": Training("hf_align.trainers.sft", "SFTTrainer", "SFTConfig", "demonstrations"),
    "reward": Training("hf_align.trainers.reward", "RewardTrainer", "RewardConfig"),
    "dpo": Training("hf_align.trainers.dpo", "DPOTrainer", "DPOConfig", keys=REF_MODEL),
    "ipo": Training("hf_align.trainers.dpo", "IPOTrainer", "IPOConfig", keys=REF_MODEL),
    "ppo": Training("hf_align", "PPOTrainer", "PPOConfig", "prompts", {**REF_MODEL, **REWARD}),
}
LORA_DEFAULTS: dict[str, Any] = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
TRAINED = ("adapter_config.json", "config.json")


def run_training(options: argparse.Namespace) -> None:
    """Trains, evaluates if the recipe has an `eval_dataset`, and saves.

    Args:
        options: Parsed arguments: `command`, `config` (the recipe's path or None), `fields` (the other flags) and
            `arguments` (the whole command line, for the advice after Ctrl-C).

    Raises:
        UserError: Anything is wrong with the recipe, the data or the model's name.
        Interrupted: Ctrl-C.
    """
    recipe = read_recipe(options.config, options.fields)
    training = TRAININGS[options.command]
    screen = Screen(stderr=options.print_config)
    with quiet_libraries(screen):
        trainer_class, config_class = training.load()
        resume_last = recipe.values.get(RESUME) is True
        if resume_last:
            recipe.values.pop(RESUME)
        checked = check_recipe(recipe, config_class, LoraConfig, training.keys)
        args = make_config(options.command, config_class, checked)
        if options.print_config:
            print(dump_recipe(checked, config_class), end="")
            return
        _check_reporters_and_sizes(args, recipe)
        if "reward" in checked.source:
            checked.source["reward"] = read_reward(checked.source["reward"], recipe.where("reward"))
        if checked.source["train_dataset"] is not None:
            check_evaluation(args, checked.source["eval_dataset"])
            check_best_metric(args, checked.source["eval_dataset"], args.eval_metrics)
        check_place(Path(args.output_dir), recipe.where("output_dir"))
        checkpoint = _checkpoint(args, recipe, resume_last)
        rows = _load_rows(training, checked, args)
        for source in (checked.source.get("model"), checked.source.get("ref_model")):
            if source is not None:
                check_source(source)
        if options.dry_run:
            dry_run(options.command, checked, args, rows, make_lora(checked), screen)
            return
        trainer = _make_trainer(trainer_class, checked, args, rows)
        try:
            _train(trainer, screen, options.command, checkpoint)
        except KeyboardInterrupt:
            raise Interrupted(_how_to_resume(options.arguments, Path(args.output_dir))) from None
        _finish(trainer, screen, options.command)


def make_config(command: str, config_class: type, checked: CheckedRecipe) -> Any:
    """The command's config from a checked recipe; what the config class refuses becomes a `UserError`."""
    try:
        return config_class(**{"disable_tqdm": True, **checked.config})
    except UserError:
        raise
    except (ValueError, TypeError, ImportError) as error:
        # Trainer's enums name the value and not the option.
        refused = str(error).partition(" is not a valid ")[0]
        name = next((name for name, value in checked.config.items() if value == refused), command)
        raise UserError(f"{name}: {error}") from None


def _check_reporters_and_sizes(args: Any, recipe: Recipe) -> None:
    """Refuses what Trainer would only stumble over once the model is loaded."""
    for name in ("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"):
        if getattr(args, name) < 1:
            raise UserError(f"{recipe.where(name)} is {getattr(args, name)}; give a number from 1")
    there = get_available_reporting_integrations()
    for name in args.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise UserError(f"{recipe.where('report_to')}: there is no reporter {name}; there are {known}, and none")
        if name not in there:
            raise UserError(f"{recipe.where('report_to')}: {name} is not installed here; pip install it, or say none")


def _train(trainer: Any, screen: Screen, command: str, checkpoint: Path | None) -> None:
    """Trains; what the optimizer or the schedule can't be made of is a user's mistake, in one line."""
    started = trainer.state.global_step
    try:
        train(trainer, screen, command, checkpoint=checkpoint)
    except UserError:
        raise
    except (ValueError, ImportError) as error:
        if trainer.state.global_step > started:
            raise
        raise UserError(f"{command}: {error}") from error
    except RuntimeError as error:
        if checkpoint is None or "size mismatch" not in str(error):
            raise
        raise UserError(
            f"{RESUME}: the weights in {checkpoint} have other sizes than this run's; give the model and the lora "
            "that they were trained with"
        ) from error


def _checkpoint(args: Any, recipe: Recipe, resume_last: bool) -> Path | None:
    directory = Path(args.output_dir)
    newest = last_checkpoint(directory)
    if resume_last or args.resume_from_checkpoint is not None:
        return check_checkpoint(
            (newest or True) if resume_last else args.resume_from_checkpoint, args, recipe.where(RESUME)
        )
    if newest is not None or any((directory / name).exists() for name in TRAINED):
        raise UserError(
            f"{recipe.where('output_dir')}: {directory} already holds a training run; choose another folder, or go on "
            f"with it by --{RESUME} true"
        )
    return None


def _load_rows(training: Training, checked: CheckedRecipe, args: Any) -> dict[str, Dataset]:
    return {
        f"{role}_dataset": load_rows(name, role, args.seed, training.rows)
        for role in ("train", "eval")
        if (name := checked.source[f"{role}_dataset"]) is not None
    }


def make_lora(checked: CheckedRecipe) -> LoraConfig | None:
    """The adapter that the recipe asks for."""
    return None if checked.lora is None else LoraConfig(**{**LORA_DEFAULTS, **checked.lora})


def _make_trainer(trainer_class: type, checked: CheckedRecipe, args: Any, rows: dict[str, Dataset]) -> Any:
    source = checked.source
    try:
        return trainer_class(
            model=source["model"],
            args=args,
            peft_config=make_lora(checked),
            quantization_config=source["quantization"],
            **{key: source[key] for key in ("ref_model", "reward") if key in source},
            **rows,
        )
    except OSError as error:  # a Hub that can't be reached, a file that is no model
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(f"model: {source['model']} can't be loaded: {str(error).splitlines()[0]}") from None


def _finish(trainer: Any, screen: Screen, command: str) -> None:
    what = f"held-out {TRAININGS[command].rows}"
    metrics = evaluate(trainer, screen, what) if trainer.eval_dataset is not None else {}
    trainer.save_model()
    trainer.save_state()
    if metrics:
        trainer.save_metrics("eval", metrics)
        kept = {name.removeprefix("eval_"): value for name, value in metrics.items() if "_per_second" not in name}
        screen.table(f"{command}, held out", ["metric", "value"], [[name, f"{kept[name]:.4g}"] for name in kept])
    if trainer.args.push_to_hub:
        trainer.push_to_hub()
    screen.line(f"saved in {trainer.args.output_dir}")


def _how_to_resume(arguments: list[str], directory: Path) -> str:
    if last_checkpoint(directory) is None:
        return "Nothing was saved yet; the same command starts again."
    # Of two equal flags the later one wins, so this replaces a --resume_from_checkpoint that is there already.
    return f"Resume with: hf-align {shlex.join(arguments)} --{RESUME} true"
