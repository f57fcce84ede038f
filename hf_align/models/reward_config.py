"""What a reward model computes from a response's hidden states, and its outputs by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from hf_align.errors import UserError
from hf_align.models.modeling_hf_align_reward import EMBEDDING, columns_of
from hf_align.numbers import number_problem

Task = Literal["regression", "binary"] | int
"""Kind of an auxiliary task: a number, a yes or no, or one of so many classes."""
POOLINGS = ("last", "mean", "max", "first")
REWARD_HEADS = ("linear", "mlp", "attention")
TAKEN = {
    *("reward", "prompt", "chosen", "rejected", "responses", "messages", "margin", "weight", "label", "preference"),
    *("votes", "ranking", "ranks", "scores", "ratings", "lengths", "source", "tools", "chat_template_kwargs"),
    *("prompt_ids", "response_ids", "index", "ref_logps", "problem", "prompt_cut", "response_cut", "left_out"),
    "contrastive",
}
"""Names that a task can't have: its labels are in a column of its name, and its loss is logged by it, beside these."""


@dataclass(frozen=True)
class RewardModelConfig:
    """Head and pooling of a reward model, and what else it predicts.

    Attributes:
        pooling: The scored hidden state: "last" real token (default), "mean" or "max" over prompt and response, or
            "first" token (for bidirectional models).
        head: "linear" (default), "mlp" (d -> d/2, ReLU, dropout 0.1, -> 1), or "attention": a linear head on the mean
            of the response's token states, weighted by a softmax over its tokens of d -> d/4, tanh, -> 1. It pools by
            itself, so it takes no other `pooling`. A layer with n inputs starts at N(0, 1/sqrt(n + 1)).
        tasks: Auxiliary tasks by name: "regression", "binary", or a number of classes (at least 2). Each is a linear
            layer on the same pooled state as the reward's.
        projection: Also project the pooled state for a contrastive loss (d -> 256, ReLU, -> 128).
        length_penalty: Subtracted from the reward for each token of the response, the added end of turn (or EOS)
            included. `RewardModel.penalize_length` fits it.

    A linear head on the last token equals `AutoModelForSequenceClassification`; the others load there, once whole, with
    `trust_remote_code=True`.

    Raises:
        UserError: An unknown choice, or a task's name that isn't an identifier or is already a column of rows.

    Example:
        >>> from hf_align import RewardModel, RewardModelConfig
        >>> RewardModelConfig().is_plain
        True
        >>> config = RewardModelConfig(pooling="mean", head="mlp", tasks={"helpful": "regression", "tone": 3})
        >>> model = RewardModel.from_backbone("HuggingFaceTB/SmolLM2-135M-Instruct", config)
        >>> model.reward_config.is_plain  # it brings code for transformers
        False
        >>> sorted(model.score_tasks(["The film was"], [" a joy."]))
        ['helpful', 'tone']
    """

    pooling: Literal["last", "mean", "max", "first"] = "last"
    head: Literal["linear", "mlp", "attention"] = "linear"
    tasks: Mapping[str, Task] = field(default_factory=dict)
    projection: bool = False
    length_penalty: float = 0.0

    def __post_init__(self) -> None:
        for name, value, choices in (("pooling", self.pooling, POOLINGS), ("head", self.head, REWARD_HEADS)):
            if value not in choices:
                raise UserError(f"RewardModelConfig.{name} is {value!r}; use one of {', '.join(choices)}.")
        if self.head == "attention" and self.pooling != "last":
            raise UserError(
                f"RewardModelConfig.pooling is {self.pooling!r}, and head='attention' pools the response's tokens by "
                "itself; leave pooling out."
            )
        if number_problem(self.length_penalty):
            raise UserError(f"RewardModelConfig.length_penalty is {self.length_penalty!r}; give a finite number.")
        if not isinstance(self.tasks, Mapping):
            raise UserError("RewardModelConfig.tasks is a mapping of names, as in {'helpful': 'regression'}.")
        for name, kind in self.tasks.items():
            _check_task(name, kind)
        object.__setattr__(self, "tasks", dict(self.tasks))  # not changed with the caller's

    @property
    def is_plain(self) -> bool:
        """Whether plain transformers computes the same scores."""
        return self == RewardModelConfig()

    @property
    def has_plain_head(self) -> bool:
        """Whether the head is one linear layer with one output, however the states are pooled."""
        return self.head == "linear" and not self.tasks and not self.projection

    @property
    def columns(self) -> dict[str, int]:
        """Columns of each task in the outputs, after the reward's: its number of classes, otherwise 1."""
        return {name: columns_of(kind) for name, kind in self.tasks.items()}

    def split(self, outputs: Tensor) -> RewardOutputs:
        """Name the columns of a reward model's outputs `[S]` or `[S, C]`."""
        if outputs.ndim == 1:
            return RewardOutputs(outputs, {}, None)
        columns = self.columns
        rewards, *parts = outputs.split([1, *columns.values(), *([EMBEDDING] if self.projection else [])], dim=-1)
        embeddings = parts.pop() if self.projection else None
        tasks = {
            name: part if isinstance(self.tasks[name], int) else part[..., 0]
            for name, part in zip(columns, parts, strict=True)
        }
        return RewardOutputs(rewards[..., 0], tasks, embeddings)


@dataclass(frozen=True)
class RewardOutputs:
    """A reward model's outputs for S responses.

    Attributes:
        rewards: `[S]`.
        tasks: By name: a regression's value `[S]`, a binary task's logit `[S]`, or n classes' logits `[S, n]`.
        embeddings: `[S, 128]` for a contrastive loss, not normalised; None without projection.
    """

    rewards: Tensor
    tasks: dict[str, Tensor]
    embeddings: Tensor | None


def _check_task(name: Any, kind: Any) -> None:
    if not isinstance(name, str) or not name.isidentifier() or name in TAKEN:
        raise UserError(
            f"RewardModelConfig.tasks has the name {name!r}; use letters, digits and underscores, and no name that "
            "rows already have (reward, prompt, margin, ...)."
        )
    classes = isinstance(kind, int) and not isinstance(kind, bool) and kind >= 2
    if kind not in ("regression", "binary") and not classes:
        raise UserError(
            f"RewardModelConfig.tasks[{name!r}] is {kind!r}; use 'regression', 'binary' or a number of classes from 2."
        )
