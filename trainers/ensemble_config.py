"""Options of an ensemble's training, and what they make of each member."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from peft import LoraConfig, PeftConfig

from hf_align.errors import UserError
from hf_align.models.aggregation import check_method
from hf_align.trainers.reward import RewardConfig

OF_THE_RUN = (
    *("output_dir", "seed", "run_name", "resume_from_checkpoint", "normalize_on", "push_to_hub", "report_to"),
    *("eval_strategy", "save_strategy", "logging_strategy", "use_cpu", "local_rank", "tasks"),
)
"""Options that are the same for all members, or that each has its own value of anyway."""
TRAINING = "training"
"""Folder in an ensemble's for its members' checkpoints, logs and records."""


@dataclass
class EnsembleConfig(RewardConfig):
    """Options of `train_ensemble` beyond `RewardConfig`, for recipes.

    Example:
        >>> from hf_align.trainers.ensemble_config import EnsembleConfig
        >>> config = EnsembleConfig("out", n=3, method="min", vary={"learning_rate": [1e-4, 2e-4, 4e-4]})
        >>> config.n, config.method, config.bootstrap
        (3, 'min', 0.8)
    """

    n: int = field(default=4, metadata={"range": "[2, inf)", "help": "Number of members."})
    bootstrap: float | None = field(
        default=0.8,
        metadata={
            "range": "(0, 1]",
            "help": "Each member trains on this many times as many prompts as there are, drawn with replacement by its "
            "seed, each with all its rows (with fewer than 20 prompts: rows). None: every member on every row.",
        },
    )
    method: Literal[
        "mean", "median", "trimmed_mean", "min", "uncertainty_weighted", "dynamic", "stacking", "weight_average"
    ] = field(
        default="mean",
        metadata={
            "help": "How the members' rewards become one; 'dynamic' and 'stacking' are fitted on half of the "
            "evaluation's prompts, 'weight_average' makes one model of all."
        },
    )
    weights: list[float] | None = field(
        default=None, metadata={"help": "Of each member, for method 'mean' or 'weight_average'. None: all alike."}
    )
    uncertainty_coef: float = field(
        default=1.0,
        metadata={
            "range": "[0, inf)",
            "help": "Method 'uncertainty_weighted' subtracts this times the members' variance.",
        },
    )
    trim: float = field(
        default=0.2,
        metadata={"range": "[0, 0.5)", "help": "Share of members that 'trimmed_mean' drops at each end."},
    )
    reference_dataset: str | None = field(
        default=None,
        metadata={
            "help": "In a recipe, rows that all members are normalised on: named like `train_dataset`. None: "
            "`eval_dataset`, or else up to 1,000 of the training rows. In Python: `train_ensemble(reference=...)`."
        },
    )
    vary: dict[str, Any] | None = field(
        default=None,
        metadata={
            "help": "Values in which members differ, by option: `learning_rate`, `freeze_layers` or any other of "
            "`RewardConfig`, `lora.r`, `lora.target_modules` or any other of the adapter's, or `model`. Member i gets "
            "value i; a shorter list starts again."
        },
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume_from_checkpoint is not None:
            raise UserError(
                "resume_from_checkpoint must be left out: an ensemble goes on by itself with the members in output_dir."
            )
        if self.enable_jit_checkpoint:
            raise UserError(
                "enable_jit_checkpoint must be left out: it would end a member as if it were done; a stopped ensemble "
                "goes on from the member's last checkpoint."
            )
        if self.normalize_on is not None:
            raise UserError(
                "normalize_on must be left out: all members of an ensemble are normalised on the same rows, the "
                "evaluation's, or those given as reference (in a recipe reference_dataset)."
            )
        # Before members are trained, not when they are put together.
        check_method(self.method, self.n, weights=self.weights, trim=self.trim, uncertainty_coef=self.uncertainty_coef)

    @property
    def evaluates_left_out_rows(self) -> bool:
        """Whether a member can be evaluated without an `eval_dataset`, on the rows that it wasn't trained on."""
        return self.bootstrap is not None


@dataclass(frozen=True)
class Member:
    """What a member is trained with.

    Attributes:
        name: Name of its folder.
        model: Hub id or folder that it starts from.
        args: Its config, with its seed and its folder for checkpoints.
        peft_config: Its adapter's config; None trains all weights.
        varied: The values in which it differs, besides the seed.
    """

    name: str
    model: str
    args: RewardConfig
    peft_config: PeftConfig | None
    varied: dict[str, Any]


def as_config(config_class: type[Any], args: RewardConfig, **changes: Any) -> Any:
    """A config of `config_class` with the values of another one and `changes`, checked like any other."""
    common = {each.name for each in dataclasses.fields(args)} & {
        each.name for each in dataclasses.fields(config_class) if each.init
    }
    return config_class(**{**{name: getattr(args, name) for name in common}, **changes})


def members_of(model: str, config: EnsembleConfig, peft_config: PeftConfig | bool | None) -> list[Member]:
    """What each member of an ensemble is trained with.

    Raises:
        UserError: `vary` names something that isn't an option, or has values that no member gets.
    """
    if peft_config is True:
        peft_config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear")
    adapter = peft_config if isinstance(peft_config, PeftConfig) else None
    if peft_config and adapter is None:
        raise UserError(f"peft_config is a {type(peft_config).__name__}; give a LoraConfig.")
    vary = check_vary(config.vary, config.n, adapter)
    work = Path(config.output_dir or "trainer_output") / TRAINING
    members = []
    for number in range(config.n):
        varied = {key: values[number % len(values)] for key, values in vary.items()}
        name = f"member-{number}"
        changes = {key: value for key, value in varied.items() if key != "model" and "." not in key}
        args = as_config(
            RewardConfig,
            config,
            **changes,
            output_dir=str(work / name),
            seed=config.seed + number,
            run_name=f"{config.run_name or Path(config.output_dir or '').name}-{name}",
            push_to_hub=False,
        )
        members.append(Member(name, varied.get("model", model), args, _varied_adapter(adapter, varied), varied))
    return members


def _varied_adapter(adapter: PeftConfig | None, varied: Mapping[str, Any]) -> PeftConfig | None:
    changes = {key.partition(".")[2]: value for key, value in varied.items() if key.startswith("lora.")}
    if adapter is None:
        return None
    try:
        return dataclasses.replace(copy.deepcopy(adapter), **changes)
    except (TypeError, ValueError) as error:
        raise UserError(f"vary: the adapter can't be made with {changes}: {error}") from error


def check_vary(vary: Any, n: int, adapter: PeftConfig | None) -> dict[str, Sequence[Any]]:
    """The lists of values by option.

    Raises:
        UserError: It names something that isn't an option that members can differ in, or has values that no member
            gets.
    """
    if not isinstance(vary, Mapping | None):
        raise UserError(f"vary is {vary!r}; give a mapping of options to lists of values.")
    fields = [each.name for each in dataclasses.fields(RewardConfig) if each.init and each.name not in OF_THE_RUN]
    of_adapter = [] if adapter is None else [f"lora.{each.name}" for each in dataclasses.fields(adapter) if each.init]
    options = ["model", *fields, *of_adapter]
    vary = _by_option(vary or {})
    for key, values in vary.items():
        if key not in options:
            raise UserError(f"vary: members can't differ in {key}; {_what_was_meant(key, options, adapter)}")
        if not isinstance(values, list | tuple) or not values:
            raise UserError(f"vary: {key} is {values!r}; give a list of values, which the members get in turn.")
        if len(values) > n:
            raise UserError(f"vary: {key} has {len(values)} values for {n} members; leave some out, or raise n.")
    return vary


def _by_option(vary: Mapping[str, Any]) -> dict[str, Any]:
    """The lists by option, those of an adapter as `lora.r`, whether they are given so or as `lora: {r: ...}`."""
    adapter = vary.get("lora")
    if not isinstance(adapter, Mapping):
        return dict(vary)
    return {key: values for key, values in vary.items() if key != "lora"} | {f"lora.{k}": v for k, v in adapter.items()}


def _what_was_meant(key: str, options: Sequence[str], adapter: PeftConfig | None) -> str:
    if key.startswith("lora.") and adapter is None:
        return "they have no adapter; give lora (peft_config)."
    if key == "seed":
        return "each has its own seed anyway, args.seed plus its number."
    if close := get_close_matches(key, options, 1):
        return f"did you mean {close[0]}?"
    return "name an option of RewardConfig that isn't one of the whole run, an adapter's such as lora.r, or model."
