"""Options of self-improvement, besides those of the training in each round."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hf_align.errors import UserError
from hf_align.fields import check_fields

LEAST_ERROR = 1e-4
"""Least error rate of a test: its bootstrap has 20 resamples beyond the end of the interval, 200,000 in all."""


@dataclass(frozen=True)
class ImprovementConfig:
    """Options of `hf-align improve`, beside those of `DPOConfig`, which hold for the training in every round.

    Example:
        >>> from hf_align.experiments.improvement.config import ImprovementConfig
        >>> round(ImprovementConfig(rounds=5, false_stop=0.1).error_of_a_test, 3)
        0.01
    """

    rounds: int = field(default=3, metadata={"range": "[1, inf)", "help": "Most rounds; the stop rule may end them."})
    prompts_per_round: int | None = field(
        default=None,
        metadata={"range": "[1, inf)", "help": "Prompts sampled in a round, the next slice each time. None: all."},
    )
    num_samples: int = field(default=4, metadata={"range": "[2, inf)", "help": "Responses sampled to each prompt."})
    max_new_tokens: int = field(
        default=64, metadata={"range": "[1, inf)", "help": "Length limit of a response, in tokens."}
    )
    temperature: float = field(
        default=1.0,
        metadata={
            "range": "(0, inf)",
            "help": "Sampling temperature of the rounds' responses; held-out prompts are sampled at 1.",
        },
    )
    top_p: float = field(
        default=1.0, metadata={"range": "(0, 1]", "help": "Sample from the most likely tokens with this probability."}
    )
    sampling_batch_size: int = field(
        default=32,
        metadata={"range": "[1, inf)", "help": "Responses generated, and stored, at a time, in whole prompts."},
    )
    rollout_engine: Literal["static", "continuous"] = field(
        default="static", metadata={"help": "Sampling engine, as in `PPOConfig`."}
    )
    finished_only: bool = field(
        default=False, metadata={"help": "Leave out samples that the length limit cut; they would be trained to end."}
    )
    judge_batch_size: int = field(
        default=64, metadata={"range": "[1, inf)", "help": "Pairs judged, and stored, at a time."}
    )
    pairs: Literal["best", "all"] = field(
        default="best",
        metadata={"help": "Pairs of a prompt: the 'best' response against the worst, or 'all' with different scores."},
    )
    anchor_share: float = field(
        default=0.5,
        metadata={
            "range": "[0, 1]",
            "help": "From round 2, share of the round's prompts whose pairs have what the first round rejected as the "
            "rejected response.",
        },
    )
    reference: Literal["last", "start"] = field(
        default="last",
        metadata={
            "help": "Reference of DPO or IPO: the policy that the round starts from ('last'), or the model that the "
            "first one started from ('start'), which is loaded a second time from round 2."
        },
    )
    eval_limit: int | None = field(
        default=200,
        metadata={"range": "[2, inf)", "help": "Most held-out prompts, and most labelled pairs (votes). None: all."},
    )
    false_stop: float = field(
        default=0.05,
        metadata={
            "range": "(0, 0.5)",
            "help": "Error rate of the stop rule: chance that a run in which nothing goes wrong is stopped, over all "
            "its rounds and both tests.",
        },
    )
    gain_share: float = field(
        default=1 / 3,
        metadata={
            "range": "(0, 1]",
            "help": "Share of the training judge's gain that the held-out judge must see: a run is stopped where it "
            "sees significantly less.",
        },
    )
    resamples: int = field(
        default=2000, metadata={"range": "[200, inf)", "help": "Least bootstrap resamples of intervals and tests."}
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.error_of_a_test < LEAST_ERROR:
            raise UserError(
                f"false_stop is {self.false_stop} for {self.rounds} rounds, which leaves each test an error rate of "
                f"{self.error_of_a_test:.1g}; a bootstrap measures {LEAST_ERROR:.0e} at least: raise false_stop to "
                f"{2 * self.rounds * LEAST_ERROR:g}"
            )

    @property
    def error_of_a_test(self) -> float:
        """One-sided error rate of each test: `false_stop`, divided among two tests in every round (Bonferroni)."""
        return self.false_stop / (2 * self.rounds)
