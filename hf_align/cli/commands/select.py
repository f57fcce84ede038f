"""`hf-align select`: which algorithm suits data, model, resources and needs."""

import argparse

from hf_align.cli.console import Screen, print_json, quiet_libraries, write_figures
from hf_align.cli.report_files import check_files, write_recipe
from hf_align.data.sources import check_split, load_rows
from hf_align.planning.selection.recipe import plan_choice
from hf_align.planning.selection.resources import Resources
from hf_align.planning.selection.rules import DEFAULT, compatible_needs, read_rules
from hf_align.planning.selection.select import Recommendation, select_algorithm
from hf_align.rewards.named import read_function

SPLITS = ("train", "test", "validation", "eval")
WIDTH = 14


def run_select(options: argparse.Namespace) -> None:
    """Recommend an algorithm, with reasons, hyper-parameters and the runner-up.

    Args:
        options: Parsed arguments; see `hf-align select --help`.

    Raises:
        UserError: The data, the model, an option or a file can't be used, or nothing fits.
    """
    screen = Screen(stderr=options.json == "-")
    check_files(options, ("json", "recipe"))
    check_split(options.data, options.split)
    resources = Resources(options.gpu, options.gpus, options.hours, options.budget, options.price, options.speed)
    given = options.rules or DEFAULT
    rules = read_function(str(given), "rules") if ".py:" in str(given) else read_rules(given)
    compatible_needs(options.need or (), () if callable(rules) else rules)  # before the data is read
    with quiet_libraries(screen):
        splits = (options.split,) if options.split else SPLITS
        rows = load_rows(options.data, "train", 0, field="data", splits=splits)
        choice = select_algorithm(
            rows, options.model, resources, options.need or (), reward=options.reward, rules=rules, progress=screen
        )
        if options.json == "-":
            print_json(choice.to_json())
        else:
            _show(choice, screen)
            if options.json is not None:
                write_figures(choice.to_json(), options.json, screen)
        if options.recipe is not None:
            name = options.data if options.split is None else f"{options.data}:{options.split}"
            planned = plan_choice(choice, options.model, resources, train_dataset=name, reward=options.reward)
            write_recipe(planned, options.recipe, screen)


def _show(choice: Recommendation, screen: Screen) -> None:
    for name, text in choice.lines():
        screen.field(name, text, WIDTH)
    shown = [
        (name, *(f"{choice.parts[name][part]:.2f}" for part in choice.parts.get(name, {})), f"{score:.3f}")
        for name, score in choice.scores.items()
    ]
    parts = next(iter(choice.parts.values()), {})
    screen.line("")
    screen.table("", ("score of", *parts, "in all"), shown)
    for name, reason in choice.excluded.items():
        screen.line(f"{name}: out, since {reason}")
