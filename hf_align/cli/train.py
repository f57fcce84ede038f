"""`hf-align reward | dpo | ipo`: one training run from a recipe."""

import argparse
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

from peft import LoraConfig

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.cli.main import Interrupted
from hf_align.cli.recipe import CheckedRecipe, Recipe, check_recipe, read_recipe
from hf_align.cli.sources import load_rows
from hf_align.cli.training import evaluate, last_checkpoint, train
from hf_align.errors import UserError

COMMANDS = {
    "reward": ("hf_align.trainers.reward", "RewardTrainer", "RewardConfig"),
    "dpo": ("hf_align.trainers.dpo", "DPOTrainer", "DPOConfig"),
    "ipo": ("hf_align.trainers.dpo", "IPOTrainer", "IPOConfig"),
}
LORA_DEFAULTS: dict[str, Any] = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}
RESUME = "resume_from_checkpoint"
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
    module, trainer_name, config_name = COMMANDS[options.command]
    screen = Screen()
    with quiet_libraries(screen):
        trainers = import_module(module)
        resume_last = recipe.values.get(RESUME) is True
        if resume_last:
            recipe.values.pop(RESUME)
        checked = check_recipe(recipe, getattr(trainers, config_name), LoraConfig)
        args = _make_config(options.command, getattr(trainers, config_name), checked)
        checkpoint = _checkpoint(args, recipe, resume_last)
        trainer = _make_trainer(getattr(trainers, trainer_name), checked, args)
        try:
            train(trainer, screen, options.command, checkpoint=checkpoint)
        except KeyboardInterrupt:
            raise Interrupted(_how_to_resume(options.arguments, Path(args.output_dir))) from None
        _finish(trainer, screen, options.command)


def _make_config(command: str, config_class: type, checked: CheckedRecipe) -> Any:
    try:
        return config_class(**{"disable_tqdm": True, **checked.config})
    except UserError:
        raise
    except (ValueError, TypeError, ImportError) as error:
        raise UserError(f"{command}: {error}") from None


def _checkpoint(args: Any, recipe: Recipe, resume_last: bool) -> Path | None:
    directory = Path(args.output_dir)
    newest = last_checkpoint(directory)
    if resume_last:
        if newest is None:
            raise UserError(f"{recipe.where(RESUME)}: {directory} has no checkpoint yet; leave it out to start")
        return newest
    if args.resume_from_checkpoint is not None:
        chosen = Path(args.resume_from_checkpoint)
        if not (chosen / "trainer_state.json").exists():
            raise UserError(f"{recipe.where(RESUME)}: {chosen} is no checkpoint folder")
        return chosen
    if newest is not None or any((directory / name).exists() for name in TRAINED):
        raise UserError(
            f"{recipe.where('output_dir')}: {directory} already holds a training run; choose another folder, or go on "
            f"with it by --{RESUME} true"
        )
    return None


def _make_trainer(trainer_class: type, checked: CheckedRecipe, args: Any) -> Any:
    source = checked.source
    rows = {
        f"{role}_dataset": load_rows(name, role, args.seed)
        for role in ("train", "eval")
        if (name := source[f"{role}_dataset"]) is not None
    }
    try:
        return trainer_class(
            model=source["model"],
            ref_model=source["ref_model"],
            args=args,
            peft_config=None if checked.lora is None else LoraConfig(**{**LORA_DEFAULTS, **checked.lora}),
            quantization_config=source["quantization"],
            **rows,
        )
    except OSError as error:  # a Hub that can't be reached, a file that is no model
        raise UserError(f"model: {source['model']} can't be loaded: {str(error).splitlines()[0]}") from None


def _finish(trainer: Any, screen: Screen, command: str) -> None:
    metrics = evaluate(trainer, screen, "held-out pairs") if trainer.eval_dataset is not None else {}
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
