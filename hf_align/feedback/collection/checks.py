"""Whether annotators, selection and prompts of a collection fit together, before anything is loaded."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from hf_align.errors import UserError
from hf_align.feedback.collection.assign import suits
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.collection.members import check_members
from hf_align.feedback.collection.pools import PromptPool
from hf_align.feedback.page.identity import check_name
from hf_align.feedback.records import Annotator


def check_annotators(annotators: Sequence[Annotator], config: CollectionConfig, adjudicators: Collection[str]) -> None:
    """Refuse annotators who can't give the answers that are wanted.

    Args:
        annotators: Who answers.
        config: `annotators_per_task`.
        adjudicators: Names of people who decide.

    Raises:
        UserError: A name is there twice, no name or, of a person, none that the page takes; somebody is both annotator
            and adjudicator; or there are too few annotators.
    """
    names = [each.name for each in annotators]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"annotators has {twice!r} twice; give each another name")
    for name in (*(each.name for each in annotators if each.kind == "person"), *adjudicators):
        if check_name(name) != name:
            raise UserError(f"the annotator's name {name!r} can't be used; leave out the space around it")
    if blank := next((each for each in annotators if not each.name.strip()), None):
        raise UserError(f"annotators has a {blank.kind} with the name {blank.name!r}; give it one")
    if both := next((name for name in names if name in adjudicators), None):
        raise UserError(f"annotators and adjudicators both have {both!r}; an adjudicator's answer is no vote")
    if len(names) < config.annotators_per_task:
        raise UserError(
            f"annotators_per_task is {config.annotators_per_task}, and annotators has {len(names)}: {', '.join(names)}"
            "; name more, or lower annotators_per_task"
        )


def check_selection(config: CollectionConfig, models: Any, reward: Any, features: Any) -> None:
    """Refuse a selection without what it chooses by, and what is to choose by without its selection. Loads no model.

    Args:
        config: `selection`.
        models: Who writes.
        reward: What an ensemble is made of; None: there is none.
        features: Language model whose states are features; None: one of `models`.

    Raises:
        UserError: As above.
    """
    if config.selection == "information" and reward is None and features is None and not models:
        raise UserError(
            "selection is 'information' and there is no ensemble to choose by and no model that writes; give `reward`, "
            "or a language model as `features`"
        )
    if config.selection == "disagreement" and reward is None:
        raise UserError(
            "selection is 'disagreement' and there is no ensemble to choose by; give `reward`, or use 'information', "
            "which can do with a language model as `features`"
        )
    if reward is not None and config.selection == "random":
        raise UserError(
            "reward is for selection 'disagreement' or 'information', which is 'random'; give one of these as "
            "selection, or leave reward out. (A reward that answers is an entry of annotators: {reward: ...})"
        )
    if features is not None and config.selection != "information":
        raise UserError(f"features is for selection 'information', which is {config.selection!r}; leave one out")
    if features is not None and reward is not None:
        raise UserError("reward and features are both given; name the one to choose by")
    if reward is not None:
        check_members(reward)


def with_annotators(
    pool: PromptPool, annotators: Sequence[Annotator], config: CollectionConfig
) -> tuple[PromptPool, int]:
    """The prompts whose domain has enough annotators, and the number of the others.

    Args:
        pool: All prompts.
        annotators: Who answers, with their domains.
        config: `annotators_per_task`.

    Raises:
        UserError: There are none.
    """
    domains = {each.prompt.domain for each in pool.prompts.values()}
    answered = {
        domain for domain in domains if sum(suits(each, domain) for each in annotators) >= config.annotators_per_task
    }
    if domains and not answered:
        raise UserError(
            f"annotators: no domain of the prompts ({', '.join(sorted(map(str, domains)))}) has "
            f"{config.annotators_per_task} annotators who answer it; change their domains, or lower annotators_per_task"
        )
    kept = {id: each for id, each in pool.prompts.items() if each.prompt.domain in answered}
    return replace(pool, prompts=kept), len(pool.prompts) - len(kept)
