"""What a run takes and whether it fits, from configs alone: `plan`, the library's side of `hf-align plan`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from hf_align.errors import UserError
from hf_align.files import whole_file
from hf_align.numbers import shown_size
from hf_align.planning.device import Device
from hf_align.planning.fitting import cheapest_changes, largest_batch, row_tokens
from hf_align.planning.memory import Needs
from hf_align.planning.other_models import check_models
from hf_align.planning.outline import Model
from hf_align.planning.settings import Settings, named_algorithm, with_data
from hf_align.planning.time import StepTime
from hf_align.trainers.disk import DiskNeeds, free_bytes
from hf_align.yaml_text import dump_yaml


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
        hours: Hours that the run may take; None: any number.

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
    hours: float | None = None

    @property
    def fits(self) -> bool:
        """Whether the device has the memory, margin included."""
        return self.device_bytes <= self.device.memory

    @cached_property
    def suggestion(self) -> Plan | None:
        """The plan with the cheapest changes that make it fit: itself if it does, None if the planner knows none."""
        if self.fits:
            return self
        changes = cheapest_changes(self.settings)
        return None if changes is None else plan_settings(self.settings.changed(**changes), changes, self.hours)

    @cached_property
    def largest_batch(self) -> int | None:
        """Rows (of trainers that sample: responses) of the largest micro-batch that fits, all else as it is; None if
        not even the smallest does."""
        return largest_batch(self.settings)

    @property
    def time(self) -> StepTime:
        """Seconds of an optimizer step by part, traced on first use, and what they assume."""
        return self.settings.time

    @property
    def step_seconds(self) -> float:
        """Seconds of an optimizer step, of trainers that sample with its share of a rollout."""
        return self.time.seconds

    @property
    def run_seconds(self) -> float | None:
        """Seconds of all steps, start and evaluations aside; None if nothing says how many there are."""
        return None if self.settings.steps is None else self.settings.steps * self.step_seconds

    @property
    def in_time(self) -> bool | None:
        """Whether it ends within `hours`; None if either isn't known."""
        return None if self.hours is None or self.run_seconds is None else self.run_seconds <= 3600 * self.hours

    @property
    def disk(self) -> DiskNeeds:
        """What the run writes into its `output_dir`."""
        return self.settings.disk

    def command(self, file: str = "recipe.yaml") -> str:
        """The command that trains by a recipe in this file."""
        return f"hf-align {self.settings.algorithm.name} --config {shlex.quote(file)}"

    def recipe(self, file: str = "recipe.yaml") -> str:
        """The run with the suggested changes as a recipe (YAML) that the algorithm's command reads.

        Args:
            file: Where it will lie, for the command in its first line.

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
        model = settings.model if isinstance(settings.model, str) else "MODEL"
        lines = [f"# {self.command(file)}", f"# Memory: {shown_size(plan.device_bytes)} planned"]
        told = {"model": " with its weights, in place of a config"}
        lines += [f"# {key}: ... is still to be given{told.get(key, '')}" for key in settings.missing()]
        return "\n".join(lines) + "\n" + dump_yaml({"model": model, **settings.values})

    def save_recipe(self, file: str) -> None:
        """Write `recipe` to a file.

        Raises:
            UserError: As `recipe`, or the disk is full.
        """
        text = self.recipe(file)
        with whole_file(file) as unfinished:
            unfinished.write_text(text, encoding="utf-8")

    def lines(self) -> Iterator[tuple[str, str]]:
        """Names and figures to show."""
        made, needs = self.settings.outline, self.needs
        yield "model", f"{made.name}, {shown_count(made.total)} weights, {shown_count(self.settings.trained)} trained"
        yield "data", self.data
        yield "layout", f"{needs.layout}, largest micro-batch {needs.rows} x {needs.tokens} tokens"
        yield from needs.lines()
        room = f"{self.device.name} has {shown_size(self.device.memory)}"
        yield "memory, about", f"{shown_size(self.device_bytes)} with the margin; {room}"
        yield "margin", str(self.device.margin)
        for note in self.notes:
            yield "note", note
        yield "fits", "yes" if self.fits else "no"
        if (packing := row_tokens(self.settings)) is not None:
            yield "suggestion", f"row_tokens {packing} packs short rows together, with the same result in less time"
        yield from self.time_lines()
        free = free_bytes(self.settings.args.output_dir)
        yield (
            "disk, about",
            f"{shown_size(self.disk.peak)} at most, with {shown_size(free)} free; {self.disk.describe()}",
        )
        if (problem := self.disk.problem(free)) is not None:
            yield "warning", problem

    def time_lines(self) -> Iterator[tuple[str, str]]:
        """Names and figures of the time to show."""
        for name, seconds in self.time.parts.items():
            yield f"time of a step: {name}", shown_seconds(seconds)
        yield "a step, about", shown_seconds(self.step_seconds)
        for note in self.time.notes:
            yield "time, note", note
        if self.run_seconds is not None:
            whole = f"{shown_seconds(self.run_seconds)} for {self.settings.steps} steps"
            yield "the run, about", f"{whole}, without start and evaluations"
        if self.hours is not None:
            said = {True: "yes", False: "no", None: "unknown: give train_dataset or max_steps"}[self.in_time]
            yield f"within {self.hours:g} hours", said

    def to_dict(self) -> dict[str, Any]:
        """The figures, for JSON."""
        suggestion, disk, made = self.suggestion, self.disk, self.settings.outline
        return {
            "algorithm": self.settings.algorithm.name,
            "model": made.name,
            "weights": made.total,
            "trained_weights": self.settings.trained,
            "layout": self.needs.layout,
            "micro_batch": [self.needs.rows, self.needs.tokens],
            "device": self.device.name,
            "peak_bytes": round(self.peak_bytes),
            "device_bytes": round(self.device_bytes),
            "device_memory": round(self.device.memory),
            "fits": self.fits,
            "parts": {name: round(size) for name, size in self.parts.items()},
            "phases": {name: round(size) for name, size in self.phases.items()},
            "step_operations": self.needs.step_operations,
            "step_seconds": self.step_seconds,
            "step_parts": self.time.parts,
            "steps": self.settings.steps,
            "run_seconds": self.run_seconds,
            "in_time": self.in_time,
            "disk_peak_bytes": round(disk.peak),
            "disk_left_bytes": round(disk.left),
            "data": self.data,
            "notes": [*self.notes, *self.time.notes],
            "disk_free_bytes": free_bytes(self.settings.args.output_dir),
            "changes": None if suggestion is None else suggestion.changes or {},
            "changed_device_bytes": None if suggestion is None else round(suggestion.device_bytes),
            "suggested_row_tokens": row_tokens(self.settings),
        }


def plan(
    model_id_or_config: Model,
    algorithm: str,
    *,
    device_memory: str | float | None = None,
    hours: float | None = None,
    **config: Any,
) -> Plan:
    """Plan a run: its memory at the peak, by purpose, whether it fits, its time and disk. No weights are loaded.

    Args:
        model_id_or_config: Hub id, folder, adapter, `config.json`, its content as a dict, or a config object.
        algorithm: Name of the algorithm: "dpo", "ppo", ...
        device_memory: A GPU's name ("h100", "l4", ...: `hf_align.planning.cards.CARDS`), or memory, as "24GB" or in
            bytes. None: this machine's GPU or CPU with what is free.
        hours: Hours that the run may take at most.
        config: Any key of a recipe: `quantization`, `lora`, `train_dataset`, and the fields of the algorithm's config.

    Returns:
        The plan.

    Raises:
        UserError: An algorithm, key or value is wrong, there is no config to load, or the trainer refuses the models.

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
    if hours is not None and not hours > 0:
        raise UserError(f"hours is {hours}; give a number above 0.")
    device = Device.here() if device_memory is None else Device.of(device_memory)
    settings = Settings(model_id_or_config, named_algorithm(algorithm), dict(config), device)
    check_models(settings.algorithm.rows, settings.source, settings.args)
    return plan_settings(with_data(settings), hours=hours)


def plan_settings(settings: Settings, changes: dict[str, Any] | None = None, hours: float | None = None) -> Plan:
    """The plan of settings; `changes` are those that led to them."""
    needs = settings.needs
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
        settings.device_bytes,
        device,
        settings.rows[1],
        tuple(notes),
        settings,
        needs,
        changes,
        hours,
    )


def shown_count(number: int) -> str:
    """A number of weights in words."""
    for unit, size in (("billion", 1e9), ("million", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def shown_seconds(seconds: float) -> str:
    """Seconds in words."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
