"""Facts of a model card: JSON-serialisable data without paths, tokens or user names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from hf_align.errors import UserError

Kind = Literal["sft", "reward", "dpo", "ipo", "ppo", "online-dpo", "hybrid", "ensemble", "model"]
"""How the model was trained; "model" if unknown."""
Labels = Literal["hard", "soft", "drawn"]


@dataclass(frozen=True)
class Evaluation:
    """One figure of an evaluation.

    Attributes:
        metric: Name of the metric, such as "accuracy".
        value: The figure; the card leaves out values that aren't finite.
        interval: Lower and upper end of its 95% interval.
        rows: Number of rows.
        dataset: The data in words.
        dataset_id: The data set's Hub id.
        split: Its split.

    Example:
        >>> from hf_align.model_cards import Evaluation
        >>> Evaluation("accuracy", 0.81, interval=(0.78, 0.84), rows=600, dataset="held-out pairs").is_finite
        True
    """

    metric: str
    value: float
    interval: tuple[float, float] | None = None
    rows: int | None = None
    dataset: str = "held-out rows"
    dataset_id: str | None = None
    split: str | None = None

    @property
    def is_finite(self) -> bool:
        """Whether there is a figure to show."""
        return math.isfinite(self.value)


@dataclass
class CardFacts:
    """All facts of a card about one model.

    Attributes:
        kind: The card's template.
        algorithm: Name and summary of another package's algorithm that trained the model; empty for ours.
        name: The model's name, without its namespace.
        base_model: Hub id of the base model, None if it is local.
        base_description: The base model in words: architecture and size; empty if unknown.
        library: "peft" for an adapter, "transformers" for whole weights, "hf-align" for an ensemble.
        adapter: The adapter's settings by name, None if all weights were trained.
        merged: Whether the adapter has been merged into the weights.
        quantization: "8bit" or "4bit" if the base was quantised in training.
        conversational: Whether the tokenizer has a chat template.
        head: A reward model's head, "linear", "mlp" or "attention"; only the linear one on the last token is plain
            transformers.
        pooling: Hidden state that a reward model's head scores.
        outputs: What a reward model predicts besides: task and kind ("regression", "binary" or a number of classes).
        projection: Whether it also projects states for a contrastive loss.
        length_penalty: Subtracted from its reward for each token of a response.
        normalization: Reference set on which its scores have mean 0 and standard deviation 1: `name`, `rows`, `mean`,
            `std` and `offset`; None for scores as trained.
        rankings: Whether it was trained on rankings instead of pairs.
        labels: Whether its loss took the better response as certain ("hard"), the share of people for it ("soft"), or
            one vote drawn in each epoch ("drawn").
        own_class: Whether a reward model is of a class that only hf-align has, since transformers has none for it.
        members: An ensemble's members: `folder`, `base_model` (Hub id or None), `kind` ("adapter" or "whole"), `rank`,
            `head`, `pooling` and `normalization`.
        combination: How an ensemble's scores become one: the content of `ensemble.json`; None for a single model.
        value_head: Source of a PPO policy's values: "shared", "adapter" or "separate".
        rewards: Rewards that a policy was trained on, by name, with keys of their heads.
        language: ISO codes.
        license: The Hub's identifier, such as "apache-2.0".
        tags: Tags besides those of every card.
        tasks: Task identifiers instead of the kind's own.
        dataset_ids: Hub ids of the training data.
        datasets: The training data in words.
        dataset_args: The data set's configuration.
        data: Statistics of the training data: label and value.
        losses: A policy's losses on pairs: `title`, `reference_free` and, of ours, `formula`, `paper` and `arxiv`.
        hyperparameters: Option and value.
        run: Hardware, duration and length of the training: label and value.
        curves: Whether there is a `training_curves.png` beside the card.
        over_optimization: Figures of PPO's watch for over-optimisation (`Course.figures`); empty without a judge.
        improvement: How rounds of self-improvement made its pairs: `judge`, `held_out_judge`, numbers of `prompts`,
            `held_out_prompts` and `rounds`, the `best` round, `pairs` of each until then, `stop` (why rounds ended) and
            `config`; empty for other models.
        stages: Of a policy that several algorithms trained one after another: `number`, `algorithm`, `steps`,
            `of_steps`, `ended`, `starts_from`, `trains`, `reference`, `kl`, `rows`, `reward` and `options` of each.
        evaluation: The figures.
        samples: `prompt` with `after` and optionally `before` and `score`.
        versions: Library and version.

    Example:
        >>> from hf_align.model_cards import CardFacts, Evaluation, render_card
        >>> facts = CardFacts(kind="dpo", name="my-policy", evaluation=[Evaluation("rewards/accuracies", 0.74)])
        >>> "my-policy" in render_card(facts)
        True
    """

    kind: Kind
    name: str
    base_model: str | None = None
    base_description: str = ""
    library: Literal["peft", "transformers", "hf-align"] = "transformers"
    adapter: dict[str, Any] | None = None
    merged: bool = False
    algorithm: dict[str, str] = field(default_factory=dict)
    quantization: str | None = None
    conversational: bool = False
    head: str = "linear"
    pooling: str = "last"
    outputs: dict[str, Any] = field(default_factory=dict)
    projection: bool = False
    length_penalty: float = 0.0
    normalization: dict[str, Any] | None = None
    rankings: bool = False
    labels: Labels = "hard"
    own_class: bool = False
    members: list[dict[str, Any]] = field(default_factory=list)
    combination: dict[str, Any] | None = None
    value_head: str | None = None
    rewards: dict[str, list[str]] = field(default_factory=dict)
    language: list[str] = field(default_factory=list)
    license: str | None = None
    tags: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    dataset_ids: list[str] = field(default_factory=list)
    datasets: list[str] = field(default_factory=list)
    dataset_args: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    losses: list[dict[str, Any]] = field(default_factory=list)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    run: dict[str, Any] = field(default_factory=dict)
    curves: bool = False
    over_optimization: dict[str, Any] = field(default_factory=dict)
    improvement: dict[str, Any] = field(default_factory=dict)
    stages: list[dict[str, Any]] = field(default_factory=list)
    evaluation: list[Evaluation] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def is_plain(self) -> bool:
        """Whether plain transformers (and peft) computes what the model computes."""
        plain_head = self.head == "linear" and self.pooling == "last" and not self.outputs and not self.projection
        return plain_head and not self.length_penalty and not self.own_class

    @property
    def brings_code(self) -> bool:
        """Whether the code that computes a reward model travels with its weights."""
        return self.library == "transformers" and not self.is_plain

    @property
    def method(self) -> str:
        """Display name of the training method."""
        losses = " and ".join(loss["title"] for loss in self.losses) or "DPO"
        names = {
            "dpo": losses,
            "sft": "demonstrations",
            "reward": "reward modelling",
            "ensemble": "an ensemble of reward models",
            "model": "fine-tuning",
            "hybrid": "several algorithms",
            "online-dpo": f"online {losses}",
            "ppo": "REINFORCE" if self.hyperparameters.get("policy_loss") == "reinforce" else "PPO",
        }
        if self.baseline == "group":
            return "GRPO" if self.hyperparameters.get("group_scaling") else "RLOO"
        return names.get(self.kind, self.kind.upper())

    @property
    def baseline(self) -> str:
        """What a policy gradient's returns were compared with: "value", "group" or "none"."""
        return self.hyperparameters.get("baseline", "value")

    @property
    def has_reference(self) -> bool:
        """Whether a loss on pairs needs a reference."""
        return not self.losses or not all(loss.get("reference_free") for loss in self.losses)

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON-serialisable values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CardFacts:
        """Make facts from the result of `to_dict`; names unknown to this version are ignored."""
        names = {entry.name for entry in fields(cls)}
        chosen = {name: value for name, value in values.items() if name in names}
        chosen["evaluation"] = as_evaluations(chosen.get("evaluation") or [])
        return cls(**chosen)


def as_evaluations(rows: Iterable[Evaluation | Mapping[str, Any]] | Mapping[str, float]) -> list[Evaluation]:
    """Figures from users: a mapping of metric to value, or rows with the fields of `Evaluation`.

    Raises:
        UserError: A row has no metric or value, or a field that `Evaluation` lacks.
    """
    if isinstance(rows, Mapping):
        return [Evaluation(str(name), float(value)) for name, value in rows.items()]
    names = {entry.name for entry in fields(Evaluation)}
    result = []
    for number, row in enumerate(rows):
        if isinstance(row, Evaluation):
            result.append(row)
            continue
        unknown = set(row) - names
        if unknown or not {"metric", "value"} <= set(row):
            problem = f"an unknown {min(unknown)!r}" if unknown else "no metric or no value"
            raise UserError(f"evaluation[{number}] has {problem}; its fields are {', '.join(sorted(names))}.")
        interval = row.get("interval")
        ends = None if interval is None else (float(interval[0]), float(interval[1]))
        result.append(Evaluation(**{**row, "value": float(row["value"]), "interval": ends}))
    return result


def listed(value: str | Iterable[str] | None) -> list[str]:
    """A string, several or None as a list."""
    return [value] if isinstance(value, str) else [str(entry) for entry in (() if value is None else value)]
