"""What a collection works with, read and checked before the first prompt is chosen."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from sqlalchemy.engine import make_url

from hf_align.errors import UserError
from hf_align.feedback.collection.annotators import ModelAnnotator
from hf_align.feedback.collection.checks import with_annotators
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.collection.domains import Classifier
from hf_align.feedback.collection.features import read_features
from hf_align.feedback.collection.gold import GoldQuestion, Rows, check_form, read_gold
from hf_align.feedback.collection.members import MemberScores, read_members
from hf_align.feedback.collection.pools import PromptPool, read_pool
from hf_align.feedback.collection.responses import check_models
from hf_align.feedback.collection.writers import LoadedPolicy, Policy, Writer, open_models
from hf_align.feedback.records import Annotator, Prompt
from hf_align.models.quantized import Quantization


@dataclass(frozen=True)
class Sources:
    """Where prompts, gold questions and responses come from.

    Attributes:
        pool: Prompts whose domain has enough annotators.
        left_out: Prompts left out because too few annotators answer their domain.
        gold: Gold questions by pool.
        writers: Who writes responses; not loaded yet. Empty without prompts.
        policy: Language model whose states are features; None without `selection` by them.
    """

    pool: PromptPool
    left_out: int
    gold: Mapping[str, Sequence[GoldQuestion]]
    writers: Sequence[Writer]
    policy: Policy | LoadedPolicy | None


def read_sources(
    config: CollectionConfig,
    models: Any,
    annotators: Sequence[Annotator],
    *,
    prompts: Dataset | list[dict[str, Any]] | None = None,
    gold: Rows | Mapping[str, Rows] | None = None,
    reward: Any = None,
    features: Any = None,
    classify: Classifier | None = None,
    quantization: Quantization = None,
    stored: Mapping[str, Prompt] | None = None,
) -> Sources:
    """Read and check all that needs no weights.

    Args:
        config: Options.
        models: As of `collect`.
        annotators: Who answers, with their domains.
        prompts: As of `collect`.
        gold: As of `collect`.
        reward: As of `collect`; only whether there is one matters here.
        features: As of `collect`.
        classify: As of `collect`.
        quantization: As of `collect`.
        stored: Prompts of the store by id, whose responses the features are to be of, too.

    Raises:
        UserError: A row can't be used, gold questions could be told from others, a model isn't there or can't write, or
            a prompt leaves one no room.
    """
    read = PromptPool({}) if prompts is None else read_pool(prompts, classify)
    pool, left_out = with_annotators(read, annotators, config)
    questions = {} if gold is None else read_gold(gold, config, classify)
    contents = [each.prompt for each in pool.prompts.values()]
    if contents:
        check_form(questions, contents)
    writers = open_models(models, quantization=quantization) if contents else []
    check_models(writers, contents, config)
    policy = None
    if config.selection != "random" and reward is None:
        named = writers or (open_models(models, quantization=quantization) if models and features is None else [])
        policy = read_features(features, named, quantization)
        known = {**(stored or {}), **{prompt.id: prompt for prompt in contents}}
        check_models([policy], list(known.values()), config)
    return Sources(pool, left_out, questions, writers, policy)


def read_annotators(
    annotators: Sequence[str | Annotator | ModelAnnotator],
) -> tuple[list[Annotator], dict[str, ModelAnnotator]]:
    """What the store holds of annotators, and those that are models by name.

    Raises:
        UserError: They are no list, or one is neither a name, a record nor a model that answers.
    """
    if isinstance(annotators, str | Annotator) or not isinstance(annotators, Sequence):
        raise UserError(f"annotators is {annotators!r}; give a list of names, records and models")
    records, models = [], {}
    for each in annotators:
        if isinstance(each, str | Annotator):
            records.append(Annotator(each) if isinstance(each, str) else each)
        elif isinstance(getattr(each, "record", None), Annotator):
            records.append(each.record)
            models[each.name] = each
        else:
            raise UserError(
                f"annotators has {each!r}; give names, Annotator records, or models such as FunctionAnnotator"
            )
    return records, models


def known_annotators(known: Mapping[str, Annotator], annotators: Sequence[Annotator]) -> list[Annotator]:
    """Annotators as the store knows them, with the groups and domains that are given now.

    Where none is given, that of the store stays.

    Args:
        known: The store's, by name.
        annotators: Those given.

    Raises:
        UserError: The store knows somebody of another kind by that name.
    """
    for each in annotators:
        if (stored := known.get(each.name, each)).kind != each.kind:
            other = f"an {stored.kind}" if stored.kind == "adjudicator" else f"a {stored.kind}"
            raise UserError(
                f"annotators: {each.name!r} is a {each.kind}, and {other} in the store; choose another name"
            )
    return [
        replace(old, group=each.group or old.group, domains=tuple(each.domains) or old.domains)
        for each, old in ((each, known.get(each.name, each)) for each in annotators)
    ]


def beside(url: str) -> Path | None:
    """A folder beside an SQLite file, for responses of an unfinished round."""
    parsed = make_url(url)
    file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return Path(f"{parsed.database}.responses") if file else None


@dataclass(frozen=True)
class EnsembleGuide:
    """An ensemble to choose by, and its name."""

    name: str
    members: MemberScores

    @classmethod
    def of(cls, reward: Any) -> EnsembleGuide:
        """The ensemble that `read_members` makes of a `reward`."""
        name = str(reward) if isinstance(reward, str | os.PathLike) else type(reward).__name__
        return cls(name, read_members(reward))
