"""The algorithms that are compared: every one that trains a policy, variants of it, and best-of-n without training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hf_align.algorithms import ALGORITHMS

Work = Literal["demonstrations", "pairs", "online-pairs", "policy-gradient", "sampling"]
"""Kinds of work, by which memory and time are estimated."""


@dataclass(frozen=True)
class Candidate:
    """An algorithm, or a variant of one.

    Attributes:
        name: Its name in rules and scores.
        algorithm: The training command; None: nothing is trained.
        options: What makes it the variant.
        advantages: What speaks for it, whatever the case.
        disadvantages: What it costs.
    """

    name: str
    algorithm: str | None
    options: Mapping[str, Any] = field(default_factory=dict)
    advantages: tuple[str, ...] = ()
    disadvantages: tuple[str, ...] = ()

    @property
    def needs_reward(self) -> bool:
        """Whether it needs a reward or a judge."""
        return self.algorithm is None or bool({"reward", "label"} & set(ALGORITHMS[self.algorithm].needs))

    @property
    def work(self) -> Work:
        """What it computes."""
        if self.algorithm is None:
            return "sampling"
        algorithm = ALGORITHMS[self.algorithm]
        if algorithm.rows == "demonstrations":
            return "demonstrations"
        if algorithm.rows != "prompts":
            return "pairs"
        return "online-pairs" if "label" in algorithm.needs else "policy-gradient"


VARIANTS = (
    Candidate(
        "sft",
        "sft",
        {},
        ("one model, no reference and no reward", "demonstrations suffice"),
        ("ignores the rejected responses", "learns at most what the demonstrations show"),
    ),
    Candidate(
        "dpo",
        "dpo",
        {},
        (
            "one stage on pairs, without reward model or sampling",
            "hyper-parameters are few: beta and the learning rate",
        ),
        ("takes each label as certain", "sees only the responses in the data"),
    ),
    Candidate(
        "cdpo",
        "dpo",
        {"label_smoothing": 0.1},
        ("DPO that assumes a share of wrong labels", "costs what DPO costs"),
        ("learns less from labels that are right", "the share of wrong labels has to be guessed"),
    ),
    Candidate(
        "ipo",
        "ipo",
        {},
        ("a finite target for each pair, which certain labels don't push on for ever", "costs what DPO costs"),
        ("beta means something else than DPO's and has to be tuned anew", "sees only the responses in the data"),
    ),
    Candidate(
        "online-dpo",
        "online-dpo",
        {},
        ("learns from the policy's own samples", "a judge of pairs will do in place of a reward model"),
        ("samples and labels while it trains", "moves far from the reference; watch the KL"),
    ),
    Candidate(
        "ppo",
        "ppo",
        {},
        ("learns from the policy's own samples and any reward", "the KL is held near a target"),
        ("many hyper-parameters, and a value head to train", "samples, scores and trains: the most work a response"),
    ),
    Candidate(
        "rloo",
        "ppo",
        {"baseline": "group"},
        ("policy gradient without a value head", "the baseline is the prompt's other samples"),
        ("needs several samples a prompt", "one advantage for all tokens of a response"),
    ),
    Candidate(
        "grpo",
        "ppo",
        {"baseline": "group", "group_scaling": True},
        ("policy gradient without a value head", "rewards are scaled within each prompt's samples"),
        ("needs several samples a prompt", "weighs prompts of equal rewards and of noise alike"),
    ),
    Candidate(
        "best-of-n",
        None,
        {"n": 4},
        ("trains no policy", "moves little from the reference: at most log n - (n-1)/n nats"),
        ("each answer costs n samples and their scores, for ever", "needs the reward wherever it answers"),
    ),
)
"""Ours, with variants, in the order that decides between equal scores."""


def candidates() -> Iterator[Candidate]:
    """Every candidate: ours, and every other registered algorithm that trains a policy, which no rule knows."""
    known = {each.algorithm for each in VARIANTS}
    for each in VARIANTS:
        if each.algorithm is None or each.algorithm in ALGORITHMS:
            yield each
    for name, algorithm in ALGORITHMS.items():
        if name not in known and algorithm.trains == "policy":
            yield Candidate(name, name, {}, (), ("no rule knows it: its score is the estimate's alone",))
