"""Stages of a hybrid run and its options."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from peft import PeftConfig
from transformers import TrainerCallback

from hf_align.errors import UserError
from hf_align.fields import check_fields
from hf_align.models.quantized import Quantization
from hf_align.trainers.config import Callbacks
from hf_align.trainers.hub import HUB_BASE
from hf_align.trainers.recording import RECORD

Adapter = Literal["continue", "merge", "new"]
START, PREVIOUS = "start", "previous"


@dataclass(frozen=True)
class Until:
    """A criterion that ends a stage before its last step. The state of both kinds is in the stage's checkpoints.

    Attributes:
        metric: A metric of the stage's evaluations, without `eval_`: "judge", "rewards/accuracies", ... The stage ends
            when it stalls.
        patience: Evaluations in a row without improvement after which it does.
        min_change: Change that counts as improvement, in the metric's units.
        greater_is_better: Whether the metric is to rise. None: yes, unless it is a loss.
        kl: KL from the start that the stage may spend, in nats per response, measured as for
            `HybridConfig.kl_budget`.

    Example:
        >>> from hf_align.trainers.hybrid.config import Until
        >>> Until(metric="rewards/accuracies", patience=3).greater_is_better is None
        True
    """

    metric: str | None = None
    patience: int = field(default=2, metadata={"range": "[1, inf)"})
    min_change: float = field(default=0.0, metadata={"range": "[0, inf)"})
    greater_is_better: bool | None = None
    kl: float | None = field(default=None, metadata={"range": "(0, inf)"})

    def __post_init__(self) -> None:
        check_fields(self)
        if self.metric is None and self.kl is None:
            raise UserError("until has neither metric nor kl; give one of them, or leave until out.")
        if self.metric is not None:
            object.__setattr__(self, "metric", self.metric.removeprefix("eval_"))

    @classmethod
    def of(cls, given: Until | Mapping[str, Any] | None) -> Until | None:
        """The criterion, also given as a mapping of its attributes.

        Raises:
            UserError: There is no such attribute.
        """
        if given is None or isinstance(given, cls):
            return given
        names = [each.name for each in fields(cls)]
        if not isinstance(given, Mapping):
            raise UserError(f"until is {given!r}; give a mapping with {', '.join(names)}.")
        for name in given:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
                raise UserError(f"until has no {name}; {f'did you mean {near[0]}?' if near else f'use {names}.'}")
        return cls(**given)


@dataclass
class Stage:
    """One algorithm of a hybrid run.

    Args:
        algorithm: Name of an algorithm that trains a policy: "sft", "dpo", "ipo", "online-dpo", "ppo", or one of
            another package (`hf_align.algorithms`).
        args: Its config, such as a `DPOConfig`, or a mapping of the config's options. `output_dir` is the hybrid's;
            so is `seed`, unless it is set here to another value than the config's default: the first stage has the
            run's seed, stage n one that is drawn from the run's seed and n.
        train_dataset: Its rows. Default: the hybrid's.
        eval_dataset: Held-out rows, on which it is evaluated at its end and by `eval_strategy`. Default: the hybrid's.
        reward: Its reward. Default: the hybrid's, where the algorithm takes one.
        judge: As the algorithm's trainer takes it: PPO's independent judge, online DPO's judge of pairs.
        eval_judge: Online DPO's independent judge.
        reference: "start": the policy before the first stage that has a reference (the base, or what SFT made of it);
            "previous": the policy as it was handed over to this stage; or the folder or Hub id of another model.
            Default: "start", or "previous" once an adapter was merged or a new one made.
        adapter: What is trained: "continue" what the stage before trained; "new": a new adapter on the weights as
            handed over; "merge": all weights as handed over. For the latter two the adapter of the stage before is
            merged in float32, so adapters are never stacked; they need weights that aren't quantised.
        peft_config: With `adapter="new"`: the adapter. Default: the hybrid's.
        until: A criterion that ends the stage early, an `Until` or a mapping of its attributes.
        callbacks: Callbacks of this stage, besides the hybrid's.

    Example:
        >>> from hf_align.trainers.hybrid.config import Stage
        >>> Stage("dpo", {"beta": 0.2, "max_steps": 100}, until={"metric": "rewards/accuracies"}).adapter
        'continue'
    """

    algorithm: str
    args: Any = None
    train_dataset: Any = None
    eval_dataset: Any = None
    reward: Any = None
    judge: Any = None
    eval_judge: Any = None
    reference: str | None = None
    adapter: Adapter = "continue"
    peft_config: PeftConfig | None = None
    until: Until | Mapping[str, Any] | None = None
    callbacks: Callbacks = None

    def __post_init__(self) -> None:
        check_fields(self)


DEFAULT_STAGES = ("dpo", "ppo", "ipo")
"""Algorithms of a hybrid without stages: a warm-up on pairs, a reward, and refinement on pairs."""


@dataclass
class HybridConfig:
    """Options of a hybrid run; those of its stages are in the stages' own configs.

    Example:
        >>> from hf_align import HybridConfig
        >>> HybridConfig("out", kl_budget=8.0).keep
        'policies'
    """

    output_dir: str = field(
        default="trainer_output",
        metadata={"help": "Folder of the run: the final policy, hybrid.json, and a folder for each stage."},
    )
    seed: int = field(
        default=42,
        metadata={
            "range": "[0, inf)",
            "help": "Seed of the run. The first stage has it, stage n one that is drawn from it and n.",
        },
    )
    keep: Literal["all", "policies", "last"] = field(
        default="policies",
        metadata={
            "help": "What stays of a finished stage: everything, its final policy without the checkpoints, or "
            "('last') only what later stages need."
        },
    )
    kl_budget: float | None = field(
        default=None,
        metadata={
            "range": "(0, inf)",
            "help": "KL from the start that the whole run may spend, in nats per response. Each stage has what is "
            "left; the run ends where nothing is. It is measured on responses to a few prompts, whatever the "
            "reference of a stage is. None: no limit.",
        },
    )
    kl_every: int = field(
        default=10, metadata={"range": "[1, inf)", "help": "Steps between two measurements of the KL from the start."}
    )
    kl_prompts: int = field(
        default=32,
        metadata={
            "range": "[1, inf)",
            "help": "Prompts that the KL is measured on, one response each: the first different ones of eval_dataset, "
            "or else of train_dataset.",
        },
    )
    kl_max_new_tokens: int = field(
        default=64, metadata={"range": "[1, inf)", "help": "Maximum tokens of these responses."}
    )
    record: bool = field(default=True, metadata={"help": RECORD})
    push_to_hub: bool = field(default=False, metadata={"help": "Push the final policy with its card at the end."})
    hub_model_id: str | None = field(
        default=None, metadata={"help": "Repository for push_to_hub. None: the name of output_dir."}
    )
    hub_private_repo: bool | None = field(
        default=None, metadata={"help": "Whether a new repository is private. None: the Hub's default."}
    )
    hub_base_model: str | None = field(default=None, metadata={"help": HUB_BASE})

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Shared:
    """What a hybrid is given for all stages: model, adapter, and defaults of data and rewards."""

    model: Any
    peft_config: PeftConfig | None = None
    quantization: Quantization = None
    train_dataset: Any = None
    eval_dataset: Any = None
    reward: Any = None
    judge: Any = None
    callbacks: list[TrainerCallback] = field(default_factory=list)
