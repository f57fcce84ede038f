"""What a run takes and whether it fits, from configs alone: `plan`, the library's side of `hf-align plan`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from peft import LoraConfig

from hf_align.algorithms import ALGORITHMS, Algorithm
from hf_align.data.sources import load_rows
from hf_align.errors import UserError
from hf_align.evaluation.scorers import read_judge
from hf_align.experiments.recipe import CheckedRecipe, Recipe, check_recipe, dump_values
from hf_align.experiments.run import LORA_DEFAULTS, make_config
from hf_align.layout.branches import Document
from hf_align.models.decoders import positions_of
from hf_align.models.sources import load_tokenizer
from hf_align.numbers import shown_size
from hf_align.planning.device import MARGIN, MARGIN_FROM, Device
from hf_align.planning.lengths import describe_lengths, longest_allowed
from hf_align.planning.memory import Needs, needs_of, reward_config_of
from hf_align.planning.outline import Model, Outline, outline
from hf_align.planning.rows import READERS
from hf_align.rewards.named import read_reward

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
    """

    model: Model
    algorithm: Algorithm
    values: dict[str, Any]
    device: Device
    documents: list[Document] | None = None

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
        absent = ["train_dataset"] if source["train_dataset"] is None else []
        scored = source.get("reward") or source.get("judge")
        return absent + (["reward"] if "reward" in source and not scored else [])

    def needs(self) -> Needs:
        """What the run needs."""
        source = {**self.checked.source, "model": self.model}
        source["reward"] = None if source.get("reward") is None else read_reward(source["reward"])
        for key in ("judge", "eval_judge"):
            if source.get(key) is not None:
                source[key] = read_judge(source[key])
        return needs_of(self.algorithm.rows, source, self.args, self.outline, self.rows[0], self.device)


@dataclass(frozen=True)
class Plan:
    """What a run takes, and whether it fits.

    Attributes:
        peak_bytes: Bytes of all tensors at the run's peak.
        parts: They by purpose: weights, gradients, activations and so on; they add up to `peak_bytes`.
        phases: Bytes of all tensors in each phase; the largest is the peak.
        device_bytes: Bytes of the device's memory that the run needs: the peak with a margin for fragmentation, and
            on a GPU CUDA's context.
        device: The device planned for.
        data: The rows planned for, in words.
        notes: What was assumed.
        changes: With which changes it fits, if not as it is; None if with none that the planner knows.
        settings: The run.
        needs: The figures in detail.

    Example:
        >>> from transformers import LlamaConfig
        >>> from hf_align.planning import plan
        >>> shape = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
        >>> planned = plan(shape, "dpo", device_memory="24GB", lora=True, max_length=64)
        >>> planned.fits, sum(planned.parts.values()) == planned.peak_bytes
        (True, True)
    """

    peak_bytes: float
    parts: dict[str, float]
    phases: dict[str, float]
    device_bytes: float
    device: Device
    data: str
    notes: tuple[str, ...]
    settings: Settings
    needs: Needs
    changes: dict[str, Any] | None = field(default=None)

    @property
    def fits(self) -> bool:
        """Whether the device has the memory, margin included."""
        return self.device_bytes <= self.device.memory

    @cached_property
    def suggestion(self) -> Plan | None:
        """The plan with the cheapest changes that make it fit: itself if it does, None if the planner knows none."""
        return self if self.fits else cheapest_that_fits(self.settings)

    def recipe(self) -> str:
        """The run with the suggested changes as a recipe (YAML) that the algorithm's command reads.

        Raises:
            UserError: The planner knows no changes with which it fits.
        """
        plan = self.suggestion
        if plan is None:
            raise UserError(
                f"No change of batch, recomputation, quantization or LoRA fits {self.device.name}; "
                "take a smaller model or shorter rows."
            )
        settings = plan.settings
        name = settings.algorithm.name
        model = settings.model if isinstance(settings.model, str) else "MODEL"
        lines = [f"# hf-align {name} --config recipe.yaml", f"# Memory: {shown_size(plan.device_bytes)} planned"]
        lines += [f"# {key}: ... is still to be given" for key in settings.missing()]
        return "\n".join(lines) + "\n" + dump_values({"model": model, **settings.values})

    def lines(self) -> Iterator[tuple[str, str]]:
        """Names and figures to show."""
        made, needs = self.settings.outline, self.needs
        yield "model", f"{made.name}, {shown_count(made.total)} weights, {shown_count(made.trained)} trained"
        yield "data", self.data
        yield "layout", f"{needs.layout}, largest micro-batch {needs.rows} x {needs.tokens} tokens"
        yield from needs.lines()
        margin = f"{MARGIN[self.device.kind]:.0%} margin" + (
            " and CUDA's context" if self.device.kind == "cuda" else ""
        )
        yield (
            "memory, about",
            f"{shown_size(self.device_bytes)} with {margin}; {self.device.name} has " + shown_size(self.device.memory),
        )
        yield "margin", MARGIN_FROM[self.device.kind]
        for note in self.notes:
            yield "note", note
        yield "fits", "yes" if self.fits else "no"

    def to_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        suggestion = self.suggestion
        return {
            "algorithm": self.settings.algorithm.name,
            "peak_bytes": round(self.peak_bytes),
            "device_bytes": round(self.device_bytes),
            "device_memory": round(self.device.memory),
            "fits": self.fits,
            "parts": {name: round(size) for name, size in self.parts.items()},
            "phases": {name: round(size) for name, size in self.phases.items()},
            "step_operations": self.needs.step_operations,
            "data": self.data,
            "notes": list(self.notes),
            "changes": None if suggestion is None else suggestion.changes or {},
        }


def plan(model_id_or_config: Model, algorithm: str, *, device_memory: str | float | None = None, **config: Any) -> Plan:
    """Plan a run: its memory at the peak, by purpose, and whether it fits. No weights are loaded.

    Args:
        model_id_or_config: Hub id, folder, adapter, `config.json`, its content as a dict, or a config object.
        algorithm: Name of the algorithm: "dpo", "ppo", ...
        device_memory: Memory of a GPU, as "24GB" or in bytes. None: this machine's GPU or CPU with what is free.
        config: Any key of a recipe: `quantization`, `lora`, `train_dataset`, and the fields of the algorithm's config.

    Returns:
        The plan.

    Raises:
        UserError: An algorithm, key or value is wrong, or there is no config to load.

    Example:
        >>> from transformers import Qwen2Config
        >>> from hf_align.planning import plan
        >>> shape = Qwen2Config(hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4)
        >>> shape.num_key_value_heads = 4
        >>> small = plan(shape, "reward", device_memory="16GB", lora=True, max_length=64)
        >>> large = plan(shape, "reward", device_memory="16GB", max_length=64)
        >>> small.peak_bytes < large.peak_bytes
        True
    """
    device = Device.here() if device_memory is None else Device.of_size(device_memory)
    return plan_settings(with_data(Settings(model_id_or_config, named_algorithm(algorithm), dict(config), device)))


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


def plan_settings(settings: Settings, changes: dict[str, Any] | None = None) -> Plan:
    """The plan of settings; `changes` are those that led to them."""
    needs = settings.needs()
    notes = list(needs.notes)
    source = settings.checked.source
    if "reward" in source and source["reward"] is None and source.get("judge") is None:
        notes.append("no reward is given: counted as a function, which takes no memory")
    if getattr(settings.args, "rollout_engine", "static") == "continuous":
        notes.append("continuous batching takes more for its cache, as much as is left")
    peak = needs.peak
    device = settings.device
    return Plan(
        peak,
        needs.parts,
        needs.totals,
        device.needed(peak),
        device,
        settings.rows[1],
        tuple(notes),
        settings,
        needs,
        changes,
    )


def cheapest_that_fits(settings: Settings) -> Plan | None:
    """The plan with the cheapest changes that fit; None if none does.

    From cheap to dear: a smaller micro-batch with more accumulation, selective and full recomputation, LoRA, weights in
    8 and in 4 bits. Each is tried with the largest micro-batch that fits.
    """
    for changes in _changes(settings):
        changed = settings.changed(**changes)
        if (batch := largest_batch(changed)) is not None:
            changes = {**changes, **batch}
            return plan_settings(settings.changed(**changes), changes)
    return None


def _changes(settings: Settings) -> Iterator[dict[str, Any]]:
    """Changes besides that of the batch, cheapest first."""
    checked, made = settings.checked, settings.outline
    recompute = "activation_recompute" in {each.name for each in dataclasses.fields(settings.args)}
    now = getattr(settings.args, "activation_recompute", "full" if settings.args.recomputes else "none")
    steps = {"none": ["none", "selective", "full"], "selective": ["selective", "full"], "full": ["full"]}[now]
    recomputes: list[dict[str, Any]] = [{}]
    recomputes += [{"activation_recompute": step} for step in steps[1:]] if recompute else []
    if not recompute and now == "none":
        recomputes.append({"gradient_checkpointing": True})
    lora: dict[str, Any] = {} if made.is_adapter else {"lora": True}
    bits = {None: (None, "8bit", "4bit"), "8bit": ("8bit", "4bit"), "4bit": ("4bit",)}[checked.source["quantization"]]
    for quantization in bits:
        adapters = ({}, lora) if quantization is None and lora else (lora,)
        for adapter in adapters:
            for each in recomputes:
                quantised = {} if quantization == checked.source["quantization"] else {"quantization": quantization}
                yield {**each, **adapter, **quantised}


def largest_batch(settings: Settings) -> dict[str, Any] | None:
    """The changes for the largest micro-batch up to the given one that fits, with the same rows a step; None if none.

    A micro-batch divides the given one, so that as many rows make a step.
    """
    args = settings.args
    whole, unit = args.per_device_train_batch_size, getattr(args, "num_samples", 1)
    sizes = [size for size in range(unit, whole + 1, unit) if whole % size == 0] or [whole]

    def fits(size: int) -> bool:
        return plan_settings(settings.changed(**_batch(args, size))).fits

    if not fits(sizes[0]):
        return None
    low, high = 1, len(sizes)  # the first `low` fit, those from `high` on don't
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if fits(sizes[middle]) else (low, middle)
    return _batch(args, sizes[low - 1])


def _batch(args: Any, size: int) -> dict[str, Any]:
    if size == args.per_device_train_batch_size:
        return {}
    accumulation = args.gradient_accumulation_steps * args.per_device_train_batch_size // size
    return {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}


def shown_count(number: int) -> str:
    """A number of weights in words."""
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)
