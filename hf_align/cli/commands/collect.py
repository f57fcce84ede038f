"""`hf-align collect`: preferences from people and models, until there are enough."""

import argparse
import shlex

from hf_align.cli.console import Screen, print_json, quiet_libraries, write_figures
from hf_align.cli.report_files import check_files
from hf_align.errors import Interrupted
from hf_align.experiments.collection import prepare_collection
from hf_align.experiments.recipe import read_recipe

WIDTH = 28
"""Width of the names before a dry run's figures."""


def run_collect(options: argparse.Namespace) -> None:
    """Collect preferences, or say what the recipe asks for.

    Args:
        options: Parsed arguments: `config` (the recipe's path or None), `fields` (the other flags), `dry_run`, `json`
            and `arguments` (the whole command line, for the hint after Ctrl-C).

    Raises:
        UserError: The recipe, data, a model or an annotator can't be used.
        Interrupted: Ctrl-C.
    """
    screen = Screen(stderr=options.json == "-")
    check_files(options, ("json",))
    recipe = read_recipe(options.config, options.fields)
    with quiet_libraries(screen):
        run = prepare_collection(recipe)
        if options.dry_run:
            for name, text in run.plan():
                screen.line(f"{name:<{WIDTH}}{text}")
            screen.line("Nothing was collected; the same command without --dry-run collects.")
            return
        try:
            result = run.execute(screen)
        except KeyboardInterrupt:
            command = f"hf-align {shlex.join(options.arguments)}"
            raise Interrupted(f"All answers are stored; the same command goes on: {command}") from None
    if options.json == "-":
        print_json(result.figures())
        return
    screen.line(str(result))
    if options.json is not None:
        write_figures(result.figures(), options.json, screen)
