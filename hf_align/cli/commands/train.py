"""`hf-align sft | reward | dpo | ipo | ppo | ...`: one training run from a recipe, or its dry run."""

import argparse
import shlex

from hf_align.algorithms import ALGORITHMS
from hf_align.cli.console import Screen, quiet_libraries
from hf_align.errors import Interrupted
from hf_align.experiments.recipe import dump_recipe, read_recipe
from hf_align.experiments.run import load_inputs, prepare
from hf_align.planning.run import plan_run
from hf_align.trainers.checkpoints import RESUME

WIDTH = 48
"""Least width of the names before a dry run's figures."""


def run_training(options: argparse.Namespace) -> None:
    """Train, evaluate if the recipe has an `eval_dataset`, and save; or print the recipe or the dry run.

    Args:
        options: Parsed arguments: `command`, `config` (the recipe's path or None), `fields` (the other flags),
            `print_config`, `dry_run` and `arguments` (the whole command line, for the hint after Ctrl-C).

    Raises:
        UserError: The recipe, the data or the model's name is wrong.
        Interrupted: Ctrl-C.
    """
    recipe = read_recipe(options.config, options.fields)
    screen = Screen(stderr=options.print_config)
    with quiet_libraries(screen):
        run = prepare(ALGORITHMS[options.command], recipe)
        if options.print_config:
            print(dump_recipe(run.checked, type(run.args)), end="")
            return
        inputs = load_inputs(run)
        for line in run.notes:
            screen.line(line)
        if options.dry_run:
            plan = plan_run(run.algorithm.rows, run.checked.source, run.args, inputs.rows, run.lora())
            width = max(WIDTH, *(len(name) + 2 for name, _ in plan.lines))
            for name, text in plan.lines:
                screen.line(f"{name:<{width}}{text}")
            plan.check()
            screen.line("Nothing was trained; the same command without --dry-run trains.")
            return
        try:
            run.execute(inputs, screen)
        except KeyboardInterrupt:
            command = f"hf-align {shlex.join(options.arguments)}".removesuffix(
                f" --{RESUME} true"
            )  # of an earlier advice
            raise Interrupted(run.after_ctrl_c(command)) from None
