"""Options of a collection of preferences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hf_align.errors import UserError
from hf_align.fields import check_fields
from hf_align.numbers import is_number

HIGH_VALUE, UNDER_REPRESENTED, ADVERSARIAL, RANDOM = "high_value", "under_represented", "adversarial", "random"
"""Pools that prompts are chosen from."""


def _shares() -> dict[str, float]:
    return {HIGH_VALUE: 0.4, UNDER_REPRESENTED: 0.3, ADVERSARIAL: 0.2}


@dataclass(frozen=True)
class CollectionConfig:
    """Options of `hf-align collect`.

    Raises:
        UserError: A value is out of its range, or two options contradict each other.

    Example:
        >>> from hf_align.feedback.collection.config import CollectionConfig
        >>> CollectionConfig(annotators_per_task=5).annotators_per_task
        5
        >>> CollectionConfig(pool_shares={"adversarial": 1.5})
        Traceback (most recent call last):
        hf_align.errors.UserError: pool_shares of 'adversarial' is 1.5; give a share from 0 to 1.
    """

    batch_size: int = field(default=100, metadata={"range": "[1, inf)", "help": "Prompts of a round."})
    pool_shares: dict[str, float] = field(
        default_factory=_shares,
        metadata={
            "help": "Shares of a round's prompts by pool: 'high_value' (by the column `value`, or the pool's name), "
            "'under_represented' (domains with the fewest comparisons so far), or any name of the column `pool`, such "
            "as 'adversarial'. The rest is drawn at random. A pool that runs dry leaves its share to the others."
        },
    )
    models_per_prompt: int = field(
        default=2, metadata={"range": "[1, inf)", "help": "Models that respond to a prompt, drawn for each prompt."}
    )
    responses_per_prompt: int = field(
        default=4, metadata={"range": "[2, inf)", "help": "Responses to a prompt, of all its models together."}
    )
    temperatures: tuple[float, ...] = field(
        default=(0.7, 0.9, 1.1),
        metadata={
            "help": "Sampling temperatures: a prompt's first model takes them in turn, the others the middle one."
        },
    )
    max_new_tokens: int = field(
        default=256, metadata={"range": "[1, inf)", "help": "Length limit of a response, in tokens."}
    )
    near: float = field(
        default=0.8,
        metadata={
            "range": "(0, 1]",
            "help": "Jaccard similarity from which two responses to a prompt count as near duplicates, of which the "
            "first is kept.",
        },
    )
    sampling_batch_size: int = field(
        default=64, metadata={"range": "[1, inf)", "help": "Responses sampled at a time, rounded to whole prompts."}
    )
    min_responses: int = field(
        default=3,
        metadata={
            "range": "[2, inf)",
            "help": "Different responses that a prompt needs. With fewer, more are sampled at higher temperatures.",
        },
    )
    resampling_rounds: int = field(
        default=3,
        metadata={
            "range": "[0, inf)",
            "help": "Further rounds of sampling for prompts below min_responses, after which they are given up.",
        },
    )
    max_pairs: int = field(
        default=6,
        metadata={
            "range": "[1, inf)",
            "help": "Pairs of a prompt. Up to 3 responses give all their pairs, more a sample of this size.",
        },
    )
    selection: Literal["random", "disagreement", "information"] = field(
        default="random",
        metadata={
            "help": "Order in which pairs are asked about: at random, by the disagreement of an ensemble of reward "
            "models (`reward`), or by the expected information of an answer, by an ensemble or by a head on a language "
            "model's states (`features`) that is fitted to the answers so far."
        },
    )
    first_answers: int = field(
        default=60,
        metadata={
            "range": "[1, inf)",
            "help": "With `features`: answers that are asked for at random before the head chooses. Each further round "
            "asks for half as many as were asked for before it, once half of the last one's are there.",
        },
    )
    annotators_per_task: int = field(
        default=3, metadata={"range": "[1, inf)", "help": "Annotators that each pair is given to."}
    )
    max_annotators: int = field(
        default=6,
        metadata={"range": "[1, inf)", "help": "Annotators of a pair on which the first ones don't agree, at most."},
    )
    gold_share: float = field(
        default=0.1,
        metadata={"range": "[0, 1)", "help": "Share of gold questions, whose answers are known, while there are any."},
    )
    min_agreement: float = field(
        default=0.7,
        metadata={
            "range": "[0, 1]",
            "help": "Share of the commonest preference among the answers below which more annotators are asked.",
        },
    )
    min_quality: float = field(
        default=0.8,
        metadata={
            "range": "[0, 1]",
            "help": "Quality below which an answer doesn't count: the mean of time plausible, confidence, track record "
            "and length of the reason.",
        },
    )
    min_seconds: float = field(
        default=10.0, metadata={"range": "[0, inf)", "help": "Seconds below which an answer is too fast to be read."}
    )
    max_seconds: float = field(
        default=300.0, metadata={"range": "(0, inf)", "help": "Seconds above which somebody was probably away."}
    )
    min_reason_length: int = field(
        default=20, metadata={"range": "[0, inf)", "help": "Characters of a reason that counts as one."}
    )
    min_confidence: float = field(
        default=0.6, metadata={"range": "[0, 1]", "help": "Confidence from which an answer counts as sure."}
    )
    aggregation: Literal["dawid_skene", "skill_weighted", "weighted", "majority"] = field(
        default="dawid_skene",
        metadata={
            "help": "How answers become one preference: as a posterior by annotators' estimated skills (Dawid-Skene "
            "with gold questions), as votes weighted by these skills or by quality, or as equal votes."
        },
    )
    seed: int = field(default=0, metadata={"range": "[0, inf)", "help": "Seed of everything that is drawn."})

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "temperatures", _temperatures(self.temperatures))
        object.__setattr__(self, "pool_shares", _checked_shares(self.pool_shares))
        for low, high in (
            ("min_responses", "responses_per_prompt"),
            ("models_per_prompt", "responses_per_prompt"),
            ("annotators_per_task", "max_annotators"),
            ("min_seconds", "max_seconds"),
        ):
            if getattr(self, low) > getattr(self, high):
                raise UserError(
                    f"{low} is {getattr(self, low)}, above {high}, which is {getattr(self, high)}; "
                    f"raise {high} or lower {low}."
                )

        if 2 * self.max_pairs < self.responses_per_prompt:
            raise UserError(
                f"max_pairs is {self.max_pairs}, too few to have each of {self.responses_per_prompt} responses in a "
                f"pair; give at least {-(-self.responses_per_prompt // 2)}."
            )

    @property
    def random_share(self) -> float:
        """Share of a round's prompts that no pool has."""
        return max(0.0, 1.0 - sum(self.pool_shares.values()))


def _temperatures(given: Any) -> tuple[float, ...]:
    if not isinstance(given, list | tuple) or not given:
        raise UserError(f"temperatures is {given!r}; give a list of at least one number above 0.")
    for value in given:
        if not is_number(value) or not 0 < value < float("inf"):
            raise UserError(f"temperatures has {value!r}; give numbers above 0.")
    return tuple(map(float, given))


def _checked_shares(given: Any) -> dict[str, float]:
    if not isinstance(given, Mapping):
        raise UserError(f"pool_shares is {given!r}; give a mapping from names of pools to shares.")
    for name, share in given.items():
        if not isinstance(name, str) or name == RANDOM:
            raise UserError(f"pool_shares names the pool {name!r}; name others, which leave the rest to chance.")
        if not is_number(share) or not 0 <= share <= 1:
            raise UserError(f"pool_shares of {name!r} is {share!r}; give a share from 0 to 1.")
    if (total := sum(given.values())) > 1 + 1e-9:
        raise UserError(f"pool_shares add up to {total:g}; they must not exceed 1.")
    return dict(given)
