"""Settings of one training run of the study, on cached features or as LoRA above cached states."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Labels = Literal["soft", "hard", "draw", "clear", "margin", "scale", "shift", "rating"]
Trained = Literal["lora", "all", "head", "features"]
Observed = Literal["all", "chain", "closure", "interpolation"]
RATING_SCALE = 2.0
"""Rating points per unit of the reward, for labels="rating": about their standard deviation."""


@dataclass(frozen=True)
class Settings:
    """One run.

    Attributes:
        labels: Target of a pair: "soft" (share of vote pairs, ties half), "hard" (by the means), "draw" (by one vote
            per text, drawn anew each epoch); hard without gaps up to 0.5: "clear", and with the gap of the means as a
            margin "margin" (it weights), "scale" or "shift"; or no pairs: "rating" (squared error to the mean rating).
        smoothing: Label smoothing.
        texts: Training texts of movies, products and tweets; 0 leaves a domain out.
        responses: K, texts per row.
        rows: Rows per step.
        epochs: Passes over the texts.
        learning_rate: Peak, after 5% warm-up; cosine to 0.
        trained: "lora" adapters, "all" weights of the layers above the cache, the "head" alone, or a head on cached
            "features".
        layer: Of the features.
        rank: Of LoRA on all linear layers, with alpha twice as large.
        pooling: Of the reward model.
        head: Of the reward model.
        freeze: Layers above the cache, lowest first, without adapter and gradient.
        task: Auxiliary tasks: "rating" (regression of the mean), "domain" (its class), or "both".
        contrastive: Coefficient of the contrastive loss over a step's texts, by whether the mean is below -0.5, above
            0.5 or between.
        curriculum: Pairs with a gap above 2 in the first third of the steps, above 1 in the second, then all.
        observed: Pairs of a row that people compared: "all", a "chain" (each text with the next), the chain and its
            "closure" by transitivity, or the chain and all other pairs with soft labels by fitted strengths
            ("interpolation"), as `augment` makes them.
        mixup: Weight of the loss on mixed rows: features, and labels as soft ones (on features only).
        flips: Share of pairs with the label flipped, each pair for good.
        longer_wins: Share of pairs in which the longer text wins, whatever people say.
        length: "head": a second head takes length out.
        bag: Share of the training texts that a member gets.
        seed: Of order, drawn votes and what is flipped.
        member: Of head, adapter and bag, with the seed; members of an ensemble share labels.
    """

    labels: Labels = "soft"
    smoothing: float = 0.0
    texts: tuple[int, int, int] = (1200, 600, 600)
    responses: int = 8
    rows: int = 4
    epochs: int = 2
    learning_rate: float = 5e-4
    trained: Trained = "lora"
    layer: int = 0
    rank: int = 16
    pooling: Literal["last", "mean", "max"] = "last"
    head: Literal["linear", "mlp", "attention"] = "linear"
    freeze: int = 0
    task: Literal["", "rating", "domain", "both"] = ""
    contrastive: float = 0.0
    curriculum: bool = False
    observed: Observed = "all"
    mixup: float = 0.0
    flips: float = 0.0
    longer_wins: float = 0.0
    length: Literal["", "head"] = ""
    bag: float = 1.0
    seed: int = 0
    member: int = 0
    frozen_layers: int = field(default=0, metadata={"help": "of the cache"})
    test: bool = False

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return json.loads(json.dumps(asdict(self)))


def same(stored: dict[str, Any], settings: Settings) -> bool:
    """Whether a stored run has these settings; those that it was stored without had their defaults."""
    return {**Settings().to_json(), **stored} == settings.to_json()
