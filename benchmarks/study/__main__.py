"""Command line of the study; see the package."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, fields
from itertools import product
from pathlib import Path
from typing import Any, get_args, get_type_hints

from benchmarks.study import averages, grids, length
from benchmarks.study.cache import CachedTexts, write_cache
from benchmarks.study.courses import keep
from benchmarks.study.features import write_features
from benchmarks.study.over_optimization import proxies, run_all as score_proxies
from benchmarks.study.ppo import REWARDS, run as run_ppo
from benchmarks.study.records import RESULTS
from benchmarks.study.runs import Inputs, run_all
from benchmarks.study.settings import Settings
from benchmarks.study.tables import all_tables
from hf_align.data.embedded.ratings import DOMAINS, Domain

SINGLE = ("texts", "frozen_layers", "test")
"""Settings that aren't a grid's."""


def cache(arguments: argparse.Namespace) -> None:
    """Compute the states behind frozen layers."""
    texts: dict[Domain, int] = dict(zip(DOMAINS, arguments.texts, strict=True))
    write_cache(arguments.base, arguments.cache, arguments.layers, texts, arguments.validation)


def features(arguments: argparse.Namespace) -> None:
    """Compute pooled features of several layers from cached embeddings."""
    cached = CachedTexts.load(arguments.cache)
    write_features(arguments.base, cached, arguments.features, arguments.layers, arguments.token_layers)


def run(arguments: argparse.Namespace) -> None:
    """Do every combination of the settings given."""
    names = [each.name for each in fields(Settings) if each.name not in SINGLE]
    rest = {"texts": tuple(arguments.texts), "test": arguments.test}
    combinations = product(*(getattr(arguments, name) for name in names))
    grid = (Settings(**dict(zip(names, values, strict=True)), **rest) for values in combinations)
    run_all(_inputs(arguments), arguments.experiment, grid, "runs.jsonl")


def heads(arguments: argparse.Namespace) -> None:
    """Part A on features."""
    inputs, seeds = _inputs(arguments), arguments.seeds
    run_all(inputs, "heads", grids.of_grid(grids.ON_FEATURES, grids.HEADS, seeds), "heads.jsonl")
    names = (grids.DEFAULT, grids.BEST)
    run_all(inputs, "hard cases", grids.hard_cases(grids.ON_FEATURES, names, seeds), "heads.jsonl")


def members(arguments: argparse.Namespace) -> None:
    """Members of ensembles, for noise and uncertainty."""
    inputs, seeds = _inputs(arguments), arguments.seeds
    start, file = (grids.ON_FEATURES, "heads.jsonl") if arguments.trained == "features" else (grids.ABOVE, "runs.jsonl")
    grid = grids.members_outside if arguments.outside else grids.members
    run_all(inputs, "members", grid(start, seeds), file)


def average(arguments: argparse.Namespace) -> None:
    """The weight average of each ensemble above the cache whose members' weights were kept."""
    inputs, seeds = _inputs(arguments), arguments.seeds
    averages.run_all(inputs, list(grids.members(grids.ABOVE, seeds)))


def lora(arguments: argparse.Namespace) -> None:
    """Part B: the most telling settings as LoRA above the cache."""
    inputs, seeds = _inputs(arguments), arguments.seeds
    run_all(inputs, "lora", grids.of_grid(grids.ABOVE, grids.LORA, seeds), "runs.jsonl")


def length_bias(arguments: argparse.Namespace) -> None:
    """A planted length bias, and two ways to take it out."""
    inputs, seeds = _inputs(arguments), arguments.seeds
    start, file = (grids.ON_FEATURES, "heads.jsonl") if arguments.trained == "features" else (grids.ABOVE, "runs.jsonl")
    run_all(inputs, "length", length.runs(start, seeds), file)


def over_optimization(arguments: argparse.Namespace) -> None:
    """Best of n by proxies from few noisy pairs."""
    inputs = _inputs(arguments)
    settings = proxies(grids.ON_FEATURES, grids.PROXY_PAIRS, arguments.seeds)
    score_proxies(inputs, settings, grids.ON_FEATURES)


def ppo(arguments: argparse.Namespace) -> None:
    """PPO on proxies from few noisy pairs, judged by a model of the other raters; an hour or more a reward."""
    sizes = {"pairs": arguments.pairs, "episodes": arguments.episodes}
    for seed in arguments.seeds:
        for reward in arguments.reward:
            run_ppo(arguments.base, arguments.out / str(seed), reward, **sizes, seed=seed)
            keep(arguments.out, arguments.results)


def tables(arguments: argparse.Namespace) -> None:
    """The tables, from the finished runs."""
    print(all_tables(arguments.results, CachedTexts.load(arguments.cache), arguments.wanted))


def _inputs(arguments: argparse.Namespace) -> Inputs:
    cached = CachedTexts.load(arguments.cache)
    return Inputs(cached, arguments.base, arguments.features, arguments.results, arguments.weights)


def _add_settings(command: argparse.ArgumentParser) -> None:
    """A flag for each setting, which takes several values where it is a grid's."""
    defaults, hints = asdict(Settings()), get_type_hints(Settings)
    command.add_argument("--texts", type=int, nargs=3, default=Settings.texts, help=f"texts of {', '.join(DOMAINS)}")
    command.add_argument("--test", action="store_true", help="measure on the test split, too: final runs only")
    command.add_argument("--experiment", default="tuning", help="name by which tables find the runs")
    for name, default in defaults.items():
        if name not in SINGLE:
            kind: Any = (lambda text: text == "True") if isinstance(default, bool) else type(default)
            flag = f"--{name.replace('_', '-')}"
            choices = get_args(hints[name]) or None
            command.add_argument(flag, dest=name, nargs="+", type=kind, default=[default], choices=choices)


def make_parser() -> argparse.ArgumentParser:
    """The command line: what all commands share, then what only some have."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    each: dict[str, argparse.ArgumentParser] = {}
    for name, function in COMMANDS.items():
        each[name] = command = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        command.add_argument("--base", help="folder of the language model (a quickstart's)")
        command.add_argument("--cache", type=Path, required=name != "ppo", help="folder of the cached states")
        command.add_argument("--features", type=Path, help="folder of the features")
        command.add_argument("--results", type=Path, default=RESULTS)
        command.add_argument("--weights", type=Path, help="folder to keep what is trained above the cache")
        command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    _add_settings(each["run"])
    each["cache"].add_argument("--layers", type=int, default=24, help="frozen lower layers")
    each["cache"].add_argument("--validation", type=int, help="validation texts per domain; default: all")
    each["cache"].add_argument("--texts", type=int, nargs=3, default=(1400, 800, 800), help="of each domain")
    each["features"].add_argument("--layers", type=int, nargs="+", default=list(range(6, 31, 3)))
    each["features"].add_argument(
        "--token-layers", type=int, nargs="+", default=[15], help="stored token by token, too"
    )
    for name in ("members", "length-bias"):
        each[name].add_argument("--trained", choices=("features", "lora"), default="features")
    each["members"].add_argument("--outside", action="store_true", help="each without a domain, to be tried on it")
    each["ppo"].add_argument("--out", type=Path, required=True, help="folder of models and runs")
    each["ppo"].add_argument("--reward", nargs="+", choices=REWARDS, default=REWARDS)
    each["ppo"].add_argument("--pairs", type=int, default=300, help="pairs of the proxies")
    each["ppo"].add_argument("--episodes", type=int, default=4096, help="responses in all, until KL 30")
    each["tables"].add_argument("--wanted", default="", help="print those whose name holds this, such as LoRA")
    return parser


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    each.__name__.replace("_", "-"): each
    for each in (cache, features, run, heads, members, average, lora, length_bias, over_optimization, ppo, tables)
}


def main() -> None:
    """Read the command line."""
    options = make_parser().parse_args()
    COMMANDS[options.command](options)


if __name__ == "__main__":
    main()
