"""`hf-align constitution`: demonstrations and preferences that a model makes by principles."""

import argparse
import shlex

from hf_align.cli.console import Screen, print_json, quiet_libraries, write_figures
from hf_align.cli.report_files import check_files
from hf_align.errors import Interrupted, UserError
from hf_align.experiments.constitution import prepare_constitution
from hf_align.experiments.recipe import read_recipe
from hf_align.feedback.constitution.made import ConstitutionData

WIDTH = 28
"""Width of the names before a dry run's figures."""


def run_constitution(options: argparse.Namespace) -> None:
    """Make the data, or say what the recipe asks for.

    Args:
        options: Parsed arguments: `config` (the recipe's path or None), `fields` (the other flags), `dry_run`, `json`
            and `arguments` (the whole command line, for the hint after Ctrl-C).

    Raises:
        UserError: The recipe, prompts, constitution, model or judge can't be used; or, after the data was written, no
            preferences came out though prompts were for them.
        Interrupted: Ctrl-C.
    """
    screen = Screen(stderr=options.json == "-")
    check_files(options, ("json",))
    recipe = read_recipe(options.config, options.fields)
    with quiet_libraries(screen):
        run = prepare_constitution(recipe)
        if options.dry_run:
            for name, text in run.plan():
                screen.line(f"{name:<{WIDTH}}{text}")
            screen.line("Nothing was written; the same command without --dry-run makes the data.")
            return
        try:
            data = run.execute(screen)
        except KeyboardInterrupt:
            command = f"hf-align {shlex.join(options.arguments)}"
            raise Interrupted(f"Finished steps are stored; the same command goes on: {command}") from None
    _show(data, run.values["output_dir"], options.json, screen)
    if data.problem is not None:
        raise UserError(data.problem)


def _show(data: ConstitutionData, folder: str, json_file: str | None, screen: Screen) -> None:
    if json_file == "-":
        print_json(data.figures)
        return
    for line in str(data).splitlines():
        screen.line(line)
    screen.line(f"data: {folder}")
    if json_file is not None:
        write_figures(data.figures, json_file, screen)
