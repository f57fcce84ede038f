"""Reading of a benchmark's grid: its keys and values, each wrong one refused in a sentence with its place."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from hf_align.errors import UserError
from hf_align.evaluation.grid import BASE
from hf_align.experiments.benchmark.config import BenchmarkConfig, Budget
from hf_align.experiments.recipe import Recipe, check_given, check_values, field_hints

KEYS: dict[str, Any] = {
    "model": str,
    "judge": str | list | dict,
    "prompts": str | dict,
    "budget": dict,
    "datasets": dict,
    "algorithms": dict | list[str],
    "options": dict | None,
    "lora": bool | dict | None,
    "quantization": str | None,
}
"""Keys of a grid besides the fields of `BenchmarkConfig`."""
REQUIRED = ("model", "judge", "prompts", "budget", "datasets", "algorithms", "output_dir")
OF_PROMPTS: dict[str, Any] = {"data": str, "limit": int | None}
OF_DATASET: dict[str, Any] = {
    "pairs": str | None,
    "prompts": str | None,
    "limit": int | None,
    "flip": float,
    "reward": str | list | dict | None,
    "budget": dict | None,
}
OF_ALGORITHM: dict[str, Any] = {"algorithm": str, "seeds": int | list[int], "datasets": list[str]}
REWARD, DATA, BEST_OF_N, HYBRID = "reward", "data", "best-of-n", "hybrid"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class DataEntry:
    """A data set of the grid; the attributes are its keys.

    Attributes:
        name: Its label, and its folder's name.
        budget: The budget of its runs: the grid's with its own keys.
        reward: The name of a reward, options to train one on its pairs with, or None.
    """

    name: str
    pairs: str | None
    prompts: str | None
    limit: int | None
    flip: float
    reward: str | list[Any] | dict[str, Any] | None
    budget: Budget


@dataclass(frozen=True)
class AlgorithmEntry:
    """An algorithm of the grid.

    Attributes:
        label: Its label, and its folder's name.
        algorithm: Its name in the registry, `hybrid` or `best-of-n`.
        seeds: Its seeds.
        datasets: Labels of its data sets.
        options: All other keys of its entry.
    """

    label: str
    algorithm: str
    seeds: tuple[int, ...]
    datasets: tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """A grid with valid keys and values of their types; whether they fit each other isn't checked yet.

    Attributes:
        recipe: The grid as given, for places in messages.
        config: Its options.
        model: The model that everything starts from.
        judge: The judge as named.
        prompts: Source of the held-out prompts.
        prompts_limit: How many of them.
        options: Options of all algorithms that have them.
        lora: Its adapter: fields of `LoraConfig`, {} for the default one, None for all weights.
        quantization: "8bit", "4bit" or None.
        datasets: Data sets by label.
        algorithms: Algorithms by label.
    """

    recipe: Recipe
    config: BenchmarkConfig
    model: str
    judge: Any
    prompts: str
    prompts_limit: int | None
    options: dict[str, Any]
    lora: dict[str, Any] | None
    quantization: str | None
    datasets: dict[str, DataEntry]
    algorithms: dict[str, AlgorithmEntry]

    def values(self) -> dict[str, Any]:
        """The grid as it was given, as JSON has it."""
        return dict(self.recipe.values)


def read_grid(recipe: Recipe) -> Grid:
    """Check the keys and values of a grid.

    Args:
        recipe: From `read_recipe`, or `Recipe(values)`.

    Raises:
        UserError: A key is unknown or missing, or a value is wrong.
    """
    of_config = field_hints(BenchmarkConfig)
    values = check_values(recipe, {**KEYS, **of_config}, (*KEYS, *of_config))
    check_given(values, REQUIRED, "grid")
    config = BenchmarkConfig(**{key: value for key, value in values.items() if key in of_config})
    if (quantization := values.get("quantization")) not in (None, "8bit", "4bit"):
        raise UserError(f"{recipe.where('quantization')} is 8bit, 4bit or null, not {quantization!r}")
    given = values["prompts"]
    prompts: dict[str, Any] = (
        {"data": given} if isinstance(given, str) else _mapping(recipe, "prompts", given, OF_PROMPTS)
    )
    if "data" not in prompts:
        raise UserError(f"{recipe.where('prompts')} has no data; write `data: embedded`, a file, folder or Hub id")
    _check_limit(recipe, "prompts", prompts)
    lora = values.get("lora")
    datasets = {name: _dataset(recipe, values["budget"], name, each) for name, each in values["datasets"].items()}
    entries = values["algorithms"]
    if isinstance(entries, list):
        if len(set(entries)) < len(entries):
            raise UserError(f"{recipe.where('algorithms')} names an algorithm twice; give a mapping of labels")
        entries = {name: {} for name in entries}
    algorithms = {label: _algorithm(recipe, config, datasets, label, each) for label, each in entries.items()}
    return Grid(
        recipe,
        config,
        values["model"],
        values["judge"],
        prompts["data"],
        prompts.get("limit"),
        values.get("options") or {},
        None if lora is None or lora is False else {} if lora is True else lora,
        quantization,
        datasets,
        algorithms,
    )


def _mapping(recipe: Recipe, path: str, values: Any, hints: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a mapping of the grid, converted to their types."""
    if not isinstance(values, dict):
        raise UserError(f"{recipe.where(path)} expects a mapping with {', '.join(hints)}, got {values!r}")
    return check_values(recipe.below(path, values), dict(hints), tuple(hints))


def _check_label(recipe: Recipe, path: str, label: Any, taken: tuple[str, ...]) -> None:
    if not isinstance(label, str) or not NAME.fullmatch(label):
        raise UserError(f"{recipe.where(path)}: {label!r} names a folder; use letters, digits, - and _")
    if label in taken:
        raise UserError(f"{recipe.where(path)}: {label} is a folder of the benchmark's own; choose another name")


def _check_limit(recipe: Recipe, path: str, values: Mapping[str, Any]) -> None:
    if (limit := values.get("limit")) is not None and limit < 1:
        raise UserError(f"{recipe.where(f'{path}.limit')} is {limit}; give a number from 1")


def _dataset(recipe: Recipe, budget: dict[str, Any], name: Any, given: Any) -> DataEntry:
    path = f"datasets.{name}"
    _check_label(recipe, path, name, (BASE, DATA))
    values = _mapping(recipe, path, given, OF_DATASET)
    _check_limit(recipe, path, values)
    flip = values.get("flip", 0.0)
    if not 0 <= flip < 1:
        raise UserError(f"{recipe.where(f'{path}.flip')} is {flip}; it is a share of the pairs, from 0 to below 1")
    if flip and values.get("pairs") is None:
        raise UserError(f"{recipe.where(f'{path}.flip')}: labels of pairs are flipped, and {name} has none; give pairs")
    own = values.get("budget")
    place = "budget" if own is None else f"{path}.budget"
    return DataEntry(
        name,
        values.get("pairs"),
        values.get("prompts"),
        values.get("limit"),
        flip,
        values.get("reward"),
        _budget(recipe, place, budget, own or {}),
    )


def _budget(recipe: Recipe, path: str, common: dict[str, Any], own: dict[str, Any]) -> Budget:
    """A budget: the grid's, with a data set's own keys. Own limits of rows or steps replace the grid's."""
    hints = field_hints(Budget)
    values = _mapping(recipe, "budget", common, hints)
    if path != "budget":
        own = _mapping(recipe, path, own, hints)
        if {"samples", "steps"} & set(own):
            values = {key: value for key, value in values.items() if key not in ("samples", "steps")}
        values |= own
    try:
        return Budget(**values)
    except UserError as error:
        named = next((f"{path}.{each.name}" for each in fields(Budget) if str(error).startswith(f"{each.name} ")), path)
        raise UserError(f"{recipe.where(named)}: {str(error).removeprefix('budget ')}") from error


def _algorithm(
    recipe: Recipe, config: BenchmarkConfig, datasets: Mapping[str, DataEntry], label: Any, given: Any
) -> AlgorithmEntry:
    path = f"algorithms.{label}"
    _check_label(recipe, path, label, (REWARD,))
    given = {} if given is None else given
    if not isinstance(given, dict):
        raise UserError(f"{recipe.where(path)} expects a mapping of its options ({{}} for none), got {given!r}")
    own = {key: value for key, value in given.items() if key in OF_ALGORITHM}
    own = check_values(recipe.below(path, own), OF_ALGORITHM, tuple(OF_ALGORITHM))
    names = own.get("datasets", list(datasets))
    for name in names:
        if name not in datasets:
            place = recipe.where(f"{path}.datasets")
            raise UserError(f"{place} has {name}, and the grid's data sets are {', '.join(datasets)}")
    return AlgorithmEntry(
        label,
        own.get("algorithm", label),
        _seeds(recipe, f"{path}.seeds", own.get("seeds"), config.seed_list),
        tuple(name for name in datasets if name in names),
        {key: value for key, value in given.items() if key not in OF_ALGORITHM},
    )


def _seeds(recipe: Recipe, path: str, given: int | list[int] | None, common: tuple[int, ...]) -> tuple[int, ...]:
    """An algorithm's seeds: the grid's, the first of them, or some; each has a base to compare with."""
    if given is None:
        return common
    if isinstance(given, int):
        if not 1 <= given <= len(common):
            raise UserError(f"{recipe.where(path)} is {given}, and the grid has {len(common)} seeds; give fewer")
        return common[:given]
    if not given or not set(given) <= set(common):
        raise UserError(f"{recipe.where(path)} is {given}; give some of the grid's seeds, {list(common)}")
    return tuple(seed for seed in common if seed in given)
