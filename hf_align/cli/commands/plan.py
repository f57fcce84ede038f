"""`hf-align plan`: memory, time and disk of a run and whether it fits, without loading weights."""

import argparse

from hf_align.cli.console import Screen, print_json, quiet_libraries, write_figures
from hf_align.cli.report_files import check_files, write_recipe
from hf_align.errors import UserError
from hf_align.experiments.recipe import read_recipe
from hf_align.numbers import shown_size
from hf_align.planning.planner import Plan, plan

WIDTH = 44
"""Least width of the names before the figures."""


def run_plan(options: argparse.Namespace) -> None:
    """Show what a run takes, whether it fits, and if not, the cheapest changes with which it does.

    Args:
        options: Parsed arguments: `config` (a recipe's path or None), `fields` (the other flags), `algorithm`, `gpu`,
            `hours`, `largest_batch`, `json` and `recipe` (a file to write the recipe to, or None).

    Raises:
        UserError: An option is wrong, or there is no model to plan for.
    """
    check_files(options, ("json", "recipe"))
    values = read_recipe(options.config, options.fields).values
    model = values.pop("model", None)
    if not isinstance(model, str):
        raise UserError("model is missing: pass --model with a Hub id, a folder or a config.json")
    screen = Screen(stderr=options.json == "-")
    with quiet_libraries(screen):
        planned = plan(model, options.algorithm, device_memory=options.gpu, hours=options.hours, **values)
        figures = planned.to_dict() | ({"largest_batch": planned.largest_batch} if options.largest_batch else {})
        if options.json == "-":
            print_json(figures)
        else:
            _show(planned, screen, largest=options.largest_batch)
            if options.json is not None:
                write_figures(figures, options.json, screen)
        if options.recipe is not None:
            write_recipe(planned, options.recipe, screen)


def _show(planned: Plan, screen: Screen, *, largest: bool) -> None:
    lines = list(planned.lines())
    width = max(WIDTH, *(len(name) + 2 for name, _ in lines))
    for name, line in lines:
        screen.line(f"{name:<{width}}{line}")
    if largest:
        screen.line(f"{'largest micro-batch that fits':<{width}}{planned.largest_batch or 'none'}")
    if not planned.fits and (better := planned.suggestion) is not None:
        changes = " ".join(f"--{key} {str(value).lower()}" for key, value in (better.changes or {}).items())
        screen.line(f"{'it fits with':<{width}}{changes}, in {shown_size(better.device_bytes)}")
    elif not planned.fits:
        screen.line("No change of batch, recomputation, quantization or LoRA makes it fit.")
