"""`hf-align hybrid`: several algorithms one after another, from a recipe, or the run's dry run."""

import argparse
import shlex

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.errors import Interrupted
from hf_align.experiments.hybrid import HybridRun, prepare_hybrid
from hf_align.experiments.recipe import read_recipe
from hf_align.planning.run import plan_run
from hf_align.trainers.hybrid.messages import in_stage
from hf_align.trainers.hybrid.words import describe_hand_over

WIDTH = 48
"""Least width of the names before a dry run's figures."""


def run_hybrid(options: argparse.Namespace) -> None:
    """Run the stages that aren't done, or print the recipe or the dry run.

    Args:
        options: Parsed arguments: `config` (the recipe's path or None), `fields` (the other flags), `print_config`,
            `dry_run` and `arguments` (the whole command line, for the hint after Ctrl-C).

    Raises:
        UserError: The recipe, the data or a model's name is wrong.
        Interrupted: Ctrl-C.
    """
    recipe = read_recipe(options.config, options.fields)
    screen = Screen(stderr=options.print_config)
    with quiet_libraries(screen):
        run = prepare_hybrid(recipe)
        if options.print_config:
            print(run.dump(), end="")
            return
        for line in run.notes():
            screen.line(line)
        if options.dry_run:
            lines = plan_lines(run)
            width = max(WIDTH, *(len(name) + 2 for name, _ in lines))
            for name, text in lines:
                screen.line(f"{name:<{width}}{text}".rstrip())
            screen.line("Nothing was trained; the same command without --dry-run trains.")
            return
        try:
            run.execute(screen)
        except KeyboardInterrupt:
            raise Interrupted(run.after_ctrl_c(f"hf-align {shlex.join(options.arguments)}")) from None


def plan_lines(run: HybridRun) -> list[tuple[str, str]]:
    """What each stage would start from, do and need, as names and figures; loads no weights.

    Raises:
        UserError: Something in the recipe is unusable, or a stage doesn't fit into memory or on disk.
    """
    lines: list[tuple[str, str]] = []
    for stage, each in zip(run.trainer().stages, run.stages, strict=True):
        with in_stage(stage.label):
            plan = plan_run(stage.algorithm.rows, each.run.checked.source, stage.args, each.rows, each.run.lora())
            plan.check()
        lines += [(stage.label, ""), *((f"  {name}", text) for name, text in describe_hand_over(stage).items())]
        lines += [(f"  {name}", text) for name, text in plan.lines]
    return lines
