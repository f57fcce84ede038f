"""`hf-align sweep`: a recipe at several weights of its rewards, and the front."""

import argparse
import shlex

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.errors import Interrupted
from hf_align.experiments.recipe import read_recipe
from hf_align.experiments.sweep import PAGE, sweep_recipe


def run_sweep(options: argparse.Namespace) -> None:
    """Train all runs that aren't finished, and draw the front.

    Args:
        options: Parsed arguments: `config` (the recipe's path or None), `fields` (the other flags), `steps` and
            `arguments` (the whole command line, for the hint after Ctrl-C).

    Raises:
        UserError: The recipe is wrong, or too few runs finished.
        Interrupted: Ctrl-C.
    """
    recipe, screen = read_recipe(options.config, options.fields), Screen()
    try:
        with quiet_libraries(screen):
            front = sweep_recipe(recipe, screen, steps=options.steps)
    except KeyboardInterrupt:
        raise Interrupted(f"The same command goes on: hf-align {shlex.join(options.arguments)}") from None
    screen.line(str(front))
    screen.line(f"front: {recipe.values['output_dir']}/{PAGE}")
