"""A run as far as a plan knows it: model, algorithm, the recipe's values, device and rows."""

from __future__ import annotations

import dataclasses
import difflib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from peft import LoraConfig

from hf_align.algorithms import ALGORITHMS, Algorithm
from hf_align.data.sources import load_rows
from hf_align.errors import UserError
from hf_align.evaluation.scorers import read_judge
from hf_align.experiments.recipe import CheckedRecipe, Recipe, check_recipe
from hf_align.experiments.run import LORA_DEFAULTS, make_config
from hf_align.layout.branches import Document
from hf_align.models.decoders import positions_of
from hf_align.models.sources import load_tokenizer
from hf_align.planning.device import Device
from hf_align.planning.lengths import describe_lengths, longest_allowed
from hf_align.planning.memory import Needs, needs_of, reward_config_of, staying_bytes, trained_weights, wrapper_of
from hf_align.planning.other_models import Source
from hf_align.planning.outline import Model, Outline, outline
from hf_align.planning.rows import READERS
from hf_align.planning.steps import steps_of
from hf_align.planning.time import StepTime, step_time
from hf_align.rewards.named import read_reward
from hf_align.trainers.disk import DiskNeeds, disk_needs
from hf_align.trainers.ensemble_config import EnsembleConfig

MODEL_KEYS = ("quantization", "lora", "bf16", "fp16")
"""Keys of changes that make another outline."""
OUTPUT = "out"
"""`output_dir` of a plan that names none."""


@dataclass(frozen=True)
class Settings:
    """A run as far as a plan knows it.

    Attributes:
        model: The model, or its config.
        algorithm: The algorithm.
        values: The recipe's keys and values besides `model`.
        device: The device planned for.
        documents: Rows of the data, as token ids; None: as long as the options allow.
        known: Outlines and needs of these settings and those changed from them, which a search asks for repeatedly.
    """

    model: Model
    algorithm: Algorithm
    values: dict[str, Any]
    device: Device
    documents: list[Document] | None = None
    known: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def changed(self, **values: Any) -> Settings:
        """The same with other values; None takes a key away."""
        merged = {key: value for key, value in {**self.values, **values}.items() if value is not None}
        return dataclasses.replace(self, values=merged)

    @cached_property
    def checked(self) -> CheckedRecipe:
        """The values, checked as a recipe's."""
        recipe = Recipe({"model": self.model if isinstance(self.model, str) else "config.json", **self.values})
        algorithm = self.algorithm
        return check_recipe(recipe, algorithm.load()[1], LoraConfig, algorithm.needs, algorithm.rows, whole=False)

    @cached_property
    def args(self) -> Any:
        """The trainer's config."""
        checked = self.checked
        given = {"output_dir": OUTPUT, "report_to": "none", **checked.config}
        given |= {"bf16": False, "fp16": False}  # `dtype` says it; this machine may lack what the device has
        config = dataclasses.replace(checked, config=given)
        return make_config(self.algorithm.name, self.algorithm.load()[1], config)

    @property
    def dtype(self) -> torch.dtype:
        """The compute dtype: as asked for, or the device's."""
        asked = self.checked.config
        if asked.get("fp16"):
            return torch.float16
        if asked.get("bf16") is None:
            return self.device.dtype
        return torch.bfloat16 if asked["bf16"] else torch.float32

    @cached_property
    def outline(self) -> Outline:
        """The trained model's outline."""
        key = f"outline {self.dtype} {[self.values.get(name) for name in MODEL_KEYS]}"
        if key not in self.known:
            self.known[key] = self._outline()
        return self.known[key]

    def _outline(self) -> Outline:
        checked, args = self.checked, self.args
        quantization = checked.source["quantization"]
        lora = None if checked.lora is None else LoraConfig(**{**LORA_DEFAULTS, **checked.lora})
        is_reward = args.checkpoint_kind == "reward"
        made = outline(
            self.model,
            reward=is_reward and reward_config_of(self.model, args),
            quantization=quantization,
            lora=lora,
            dtype=self.dtype,
            fast=self.device.dtype,
            frozen_layers=getattr(args, "freeze_layers", 0),
        )
        if quantization is not None and not made.is_adapter:
            raise UserError("A quantised model trains only through an adapter; give lora.")
        return made

    @cached_property
    def rows(self) -> tuple[list[Document], str]:
        """The rows planned for, and what they are, in words."""
        if self.documents is not None:
            return self.documents, f"{len(self.documents)} rows, {describe_lengths(self.documents)}"
        documents, said = longest_allowed(self.algorithm.rows, self.args, positions_of(self.outline.model.config))
        return documents, f"none given; {said}"

    def missing(self) -> list[str]:
        """Required keys of a recipe that have no value yet."""
        source = self.checked.source
        absent = [] if isinstance(self.model, str) and not self.model.endswith(".json") else ["model"]  # or its config
        absent += ["train_dataset"] if source["train_dataset"] is None else []
        scored = source.get("reward") or source.get("judge")
        return absent + (["reward"] if "reward" in source and not scored else [])

    @cached_property
    def source(self) -> Source:
        """The recipe's source keys, its reward and judges resolved."""
        source = {**self.checked.source, "model": self.model}
        source["reward"] = None if source.get("reward") is None else read_reward(source["reward"])
        for key in ("judge", "eval_judge"):
            if source.get(key) is not None:
                source[key] = read_judge(source[key])
        return source

    @property
    def trained(self) -> int:
        """Number of trained weights, with a value head's or a value model's."""
        return trained_weights(self.source, self.args, self.outline)

    @cached_property
    def needs(self) -> Needs:
        """What the run needs."""
        key = f"needs {self.device.kind} {self.dtype} {sorted(self.values.items(), key=str)}"
        if key not in self.known:
            kind, rows = self.algorithm.rows, self.rows[0]
            self.known[key] = needs_of(kind, self.source, self.args, self.outline, rows, self.device)
        return self.known[key]

    @property
    def least_bytes(self) -> float:
        """Bytes of the device below which no batch fits: what stays throughout, and the gradients."""
        wrapper = wrapper_of(self.source, self.args, self.outline)
        stays = staying_bytes(self.source, self.args, self.outline, wrapper, self.device)
        return self.device.needed(sum(stays.values()) + stays["trained weights"], sum(stays.values()))

    @property
    def device_bytes(self) -> float:
        """Bytes of the device's memory that the run needs, margin included."""
        return self.device.needed(self.needs.peak, sum(self.needs.stays.values()))

    @property
    def fits(self) -> bool:
        """Whether the device has them."""
        return self.device_bytes <= self.device.memory

    @cached_property
    def time(self) -> StepTime:
        """Seconds of a step."""
        rows, kind = self.rows[0], self.algorithm.rows
        return step_time(kind, self.source, self.args, self.outline, rows, self.device, self.needs)

    @cached_property
    def member_steps(self) -> int | None:
        """Optimizer steps of the run, of an ensemble those of a member; None where neither data nor options say."""
        args = self.args
        if self.documents is None and args.max_steps <= 0:
            return None
        share = (args.bootstrap or 1.0) if isinstance(args, EnsembleConfig) else 1.0
        return steps_of(args, round(share * len(self.documents or ())))

    @property
    def members(self) -> int:
        """Models that the run trains, one after another."""
        return self.args.n if isinstance(self.args, EnsembleConfig) else 1

    @property
    def steps(self) -> int | None:
        """Optimizer steps of the whole run."""
        return None if self.member_steps is None else self.members * self.member_steps

    @cached_property
    def disk(self) -> DiskNeeds:
        """What the run writes into its `output_dir`."""
        wrapper = wrapper_of(self.source, self.args, self.outline)
        return disk_needs(self.args, wrapper, self.member_steps).of_members(self.members)


def named_algorithm(name: str) -> Algorithm:
    """The algorithm of this name.

    Raises:
        UserError: There is none; the message suggests the nearest one.
    """
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    nearest = difflib.get_close_matches(name, list(ALGORITHMS), n=1, cutoff=0.5)
    meant = f"did you mean {nearest[0]}?" if nearest else f"there are {', '.join(ALGORITHMS)}"
    raise UserError(f"algorithm: there is no {name!r}; {meant}")


def with_data(settings: Settings) -> Settings:
    """The settings with the rows of their `train_dataset`, if they name one."""
    source = settings.checked.source
    name = source["train_dataset"]
    if name is None:
        return settings
    if not isinstance(settings.model, str) or settings.model.endswith(".json"):
        raise UserError(
            "train_dataset: a config has no tokenizer to count tokens with; name a model, or give max_length."
        )
    rows = load_rows(name, "train", settings.args.seed, settings.algorithm.rows)
    tokenizer = load_tokenizer(settings.model)
    documents = READERS[settings.algorithm.rows]({"train_dataset": rows}, tokenizer, settings.args)
    return dataclasses.replace(settings, documents=documents)
