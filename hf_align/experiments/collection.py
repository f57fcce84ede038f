"""The recipe of `hf-align collect`: a store, prompts, models, annotators and the options of a collection."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from datasets import Dataset

from hf_align.data.sources import load_rows
from hf_align.errors import UserError
from hf_align.evaluation.scorers import read_judge
from hf_align.experiments.recipe import Recipe, check_given, check_values, field_hints
from hf_align.feedback import (
    Annotator,
    Collection,
    CollectionConfig,
    FunctionAnnotator,
    JudgeAnnotator,
    RewardAnnotator,
    collect,
)
from hf_align.feedback.collection.annotators import ModelAnnotator
from hf_align.feedback.collection.checks import check_annotators, check_selection
from hf_align.feedback.collection.domains import Classifier
from hf_align.feedback.collection.inputs import read_sources
from hf_align.feedback.judges.named import check_judge, name_of
from hf_align.feedback.judges.reward import check_tie_band
from hf_align.feedback.store.place import missing_file
from hf_align.numbers import plural
from hf_align.progress import Progress
from hf_align.rewards.named import read_function
from hf_align.rewards.sources import check_named_models

KEYS: dict[str, Any] = {
    "store": str,
    "prompts": str | None,
    "split": str | None,
    "models": str | list[str] | None,
    "annotators": str | list,
    "n": int,
    "gold": str | dict | None,
    "reward": str | list | None,
    "features": str | None,
    "classify": str | None,
    "adjudicators": str | list[str] | None,
    "cache": str | None,
    "quantization": Literal["8bit", "4bit"] | None,
    "wait": bool,
}
"""Keys of a recipe besides the fields of `CollectionConfig`."""
REQUIRED = ("store", "annotators", "n")
SPLITS = ("train", "test", "validation", "eval")
OF_PERSON = {"name": str, "group": str | None, "domains": str | list[str] | None}
OF_FUNCTION = {**OF_PERSON, "name": str | None, "function": str}
OF_REWARD = {**OF_PERSON, "name": str | None, "reward": str | list, "tie_band": float | None}
OF_JUDGE = {**OF_PERSON, "name": str | None, "judge": str | list | dict}
"""Keys of an entry of `annotators` that is a mapping."""
KEYS_OF_MODELS = {"judge": OF_JUDGE, "reward": OF_REWARD, "function": OF_FUNCTION}
"""The same by the key that makes it a model."""


@dataclass(frozen=True)
class CollectionRun:
    """A checked recipe of a collection, before anything is loaded.

    Attributes:
        recipe: The recipe, for its keys' places.
        values: Values of `KEYS`.
        config: Options.
        prompts: Rows to choose prompts from, if any.
        gold: Gold questions by pool.
        classify: Names the domain of prompts.
    """

    recipe: Recipe
    values: dict[str, Any]
    config: CollectionConfig
    prompts: Dataset | None
    gold: dict[str, Dataset] | None
    classify: Classifier | None

    def annotators(self) -> list[str | Annotator | ModelAnnotator]:
        """The annotators, with rewards loaded.

        Raises:
            UserError: An entry is none, or its function or reward doesn't exist.
        """
        return [_annotator(entry, place) for place, entry in _entries(self.recipe, self.values)]

    def plan(self) -> list[tuple[str, str]]:
        """Names and figures of what the recipe asks for, all of it checked as far as it can be without loading a model.

        Raises:
            UserError: Something can't be used: rows, models, rewards, or annotators for the prompts' domains.
        """
        values, entries = self.values, _entries(self.recipe, self.values)
        new = missing_file(values["store"]) is not None
        reward = self.reward()
        for place, entry in entries:
            if isinstance(entry, dict) and "reward" in entry:
                check_named_models(read_judge(entry["reward"], place))
        for each in reward if isinstance(reward, list) else [reward]:
            check_named_models(each)
        sources = read_sources(
            *(self.config, _listed(values["models"]), [_record(entry) for _, entry in entries]),
            **{"prompts": self.prompts, "gold": self.gold, "reward": reward, "classify": self.classify},
            **{"features": values["features"], "quantization": values["quantization"]},
        )
        lines = [("store", values["store"] + " (new)" * new), ("valid comparisons wanted", f"{values['n']:,}")]
        if self.prompts is not None:
            pool = sources.pool
            prompts = [each.prompt for each in pool.prompts.values()]
            domains = Counter(str(prompt.domain) for prompt in prompts).most_common()
            lines += [("prompts", f"{len(prompts):,} ({plural(pool.repeated, 'repeated row')} left out)")]
            if sources.left_out:
                lines += [("prompts left out", f"{sources.left_out:,}: too few annotators answer their domain")]
            lines += [("domains", ", ".join(f"{name} {count:,}" for name, count in domains))]
            pools = {name: sum(pool.fits(id, name) for id in pool.prompts) for name in self.config.pool_shares}
            lines += [("prompts by pool", ", ".join(f"{name} {count:,}" for name, count in pools.items()) or "all")]
        lines += [("models", ", ".join(_listed(values["models"])) or "none")]
        lines += [("annotators", ", ".join(_name(entry) for _, entry in entries))]
        lines += [(f"gold questions ({name})", f"{len(questions):,}") for name, questions in sources.gold.items()]
        return lines

    def reward(self) -> Any:
        """What `selection` chooses by, functions for their names; no model is loaded."""
        given = self.values["reward"]
        if not isinstance(given, list):
            return given
        return [read_judge(each, self.recipe.where("reward")) for each in given]

    def execute(self, progress: Progress) -> Collection:
        """Collect.

        Raises:
            UserError: Something can't be loaded or used, or an annotator fails.
            KeyboardInterrupt: After Ctrl-C; everything until then is stored.
        """
        values = self.values
        return collect(
            values["store"],
            self.config,
            _listed(values["models"]),
            self.annotators(),
            values["n"],
            prompts=self.prompts,
            gold=self.gold,
            reward=self.reward(),
            features=values["features"],
            classify=self.classify,
            adjudicators=_listed(values["adjudicators"]),
            cache=values["cache"],
            quantization=values["quantization"],
            wait=values["wait"],
            progress=progress,
        )


def prepare_collection(recipe: Recipe) -> CollectionRun:
    """Check a recipe and read its data.

    Raises:
        UserError: A key is unknown, missing or has a wrong value, or data can't be read.
    """
    values = check_values(recipe, {**KEYS, **field_hints(CollectionConfig)}, KEYS)
    check_given(values, (*REQUIRED, *["models"] * (values.get("prompts") is not None)))
    if values["n"] < 1:
        raise UserError(f"n is {values['n']}; give the number of valid comparisons wanted, from 1")
    sources = {key: values.pop(key, key == "wait" or None) for key in KEYS}
    config = CollectionConfig(**values)
    for place, entry in _entries(recipe, sources):
        _check_entry(entry, place)
    records = [_record(entry) for _, entry in _entries(recipe, sources)]
    check_annotators(records, config, _listed(sources["adjudicators"]))
    check_selection(config, sources["models"], sources["reward"], sources["features"])
    classify, gold = sources["classify"], sources["gold"]
    pools = {"gold": gold} if isinstance(gold, str) else gold or {}
    splits = (sources["split"],) if sources["split"] else SPLITS
    return CollectionRun(
        recipe,
        sources,
        config,
        None if sources["prompts"] is None else load_source(sources["prompts"], "prompts", splits, config.seed),
        {str(name): load_source(str(data), "gold", SPLITS, config.seed) for name, data in pools.items()} or None,
        None if classify is None else read_function(classify, recipe.where("classify")),
    )


def load_source(name: str, field: str, splits: tuple[str, ...], seed: int) -> Dataset:
    """Rows by their name; embedded ones are prompts, or pairs for another field than `prompts`.

    Raises:
        UserError: They don't exist or can't be read.
    """
    kind: Literal["prompts", "pairs"] = "prompts" if field == "prompts" else "pairs"
    return load_rows(name, "train", seed, kind, field=field, splits=splits)


def _listed(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _entries(recipe: Recipe, values: dict[str, Any]) -> list[tuple[str, Any]]:
    """Entries of `annotators` with their places."""
    return [
        (f"{recipe.where('annotators')}, entry {number}", entry)
        for number, entry in enumerate(_listed(values["annotators"]), start=1)
    ]


def _check_entry(entry: Any, place: str) -> None:
    """Refuse an entry of `annotators` that is neither a name nor a mapping with the keys of its kind."""
    if isinstance(entry, str):
        return
    if not isinstance(entry, dict):
        raise UserError(f"{place} expects a name or a mapping with judge, reward, function or name, got {entry!r}")
    keys = KEYS_OF_MODELS.get(_model_key(entry) or "", OF_PERSON)
    inside = Recipe({str(key): value for key, value in entry.items()}, {str(key): f"{place}: {key}" for key in entry})
    values = check_values(inside, keys, keys)
    if values.get("tie_band") is not None:
        check_tie_band(values["tie_band"])
    if "function" in values:
        read_function(values["function"], place)
    if "judge" in values:
        check_judge(values["judge"], f"{place}: judge")
    if keys is OF_PERSON and not values.get("name"):
        raise UserError(f"{place} has no name; write {{name: ...}}, or name a judge, reward or function")


def _model_key(entry: Any) -> str | None:
    """The key that makes an entry a model; None for a person."""
    return next((key for key in KEYS_OF_MODELS if key in entry), None) if isinstance(entry, dict) else None


def _name(entry: Any) -> str:
    if isinstance(entry, str):
        return entry
    key = _model_key(entry)
    return entry.get("name") or ("" if key is None else name_of(entry[key] if key == "judge" else {key: entry[key]}))


def _record(entry: Any) -> Annotator:
    """What the store will hold of an entry of `annotators`; loads nothing."""
    if isinstance(entry, str):
        return Annotator(entry)
    kind = "person" if _model_key(entry) is None else "model"
    return Annotator(_name(entry), kind, entry.get("group"), tuple(_listed(entry.get("domains"))))


def _annotator(entry: Any, place: str) -> str | Annotator | ModelAnnotator:
    record, key = _record(entry), _model_key(entry)
    who: dict[str, Any] = {"group": record.group, "domains": record.domains}
    if key is None:
        return record
    if key == "judge":
        return JudgeAnnotator(record.name, check_judge(entry["judge"], f"{place}: judge"), **who)
    if key == "function":
        return FunctionAnnotator(record.name, read_function(entry["function"], place), **who)
    return RewardAnnotator(record.name, read_judge(entry["reward"], place), tie_band=entry.get("tie_band"), **who)
