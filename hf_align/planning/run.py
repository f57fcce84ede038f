"""Checks and estimates of a run's data, model, memory and disk, without loading weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from datasets import Dataset
from peft import PeftConfig

from hf_align.acceleration.registry import Setting, decide, describe
from hf_align.algorithms import Rows
from hf_align.errors import UserError
from hf_align.models.sources import load_tokenizer
from hf_align.numbers import shown_size
from hf_align.planning.device import Device
from hf_align.planning.lengths import describe_lengths
from hf_align.planning.memory import needs_of, reward_config_of, trained_weights
from hf_align.planning.other_models import Source, check_models
from hf_align.planning.outline import Outline, outline
from hf_align.planning.phases import Untraceable
from hf_align.planning.planner import shown_count
from hf_align.planning.rows import READERS, tokenized_prompts
from hf_align.planning.steps import describe_steps, stages_of, steps_of
from hf_align.trainers.converted_stream import read_as_preferences
from hf_align.trainers.disk import DiskNeeds, disk_needs, free_bytes
from hf_align.trainers.ensemble_config import EnsembleConfig
from hf_align.trainers.rollouts.data import check_room
from hf_align.trainers.stream import first_rows, is_stream


@dataclass(frozen=True)
class DryRun:
    """Needs of a run, compared with this machine.

    Attributes:
        lines: Names and figures to show.
        memory: Bytes of memory needed.
        disk: What is written and kept on disk.
        where: The device.
        free_memory: Free bytes on the device.
        free_disk: Free bytes on the output folder's disk.
    """

    lines: list[tuple[str, str]]
    memory: float
    disk: DiskNeeds
    where: str
    free_memory: int
    free_disk: int

    def check(self) -> None:
        """Refuse a run that doesn't fit into memory or on disk."""
        if self.memory > self.free_memory:
            raise UserError(
                f"this needs about {shown_size(self.memory)} of memory, and {shown_size(self.free_memory)} are free on "
                f"{self.where}; try quantization: 4bit, lora: true, gradient_checkpointing: true, or a smaller "
                "per_device_train_batch_size"
            )
        self.disk.check(self.free_disk)


def plan_run(kind: Rows, source: Source, args: Any, rows: Mapping[str, Dataset], lora: PeftConfig | None) -> DryRun:
    """Check data and model, and estimate a run's resources.

    Args:
        kind: Kind of rows that the algorithm trains on.
        source: The recipe's `model`, `quantization` and so on, its reward resolved.
        args: The trainer's config.
        rows: `train_dataset` and perhaps `eval_dataset`.
        lora: The adapter that would be trained.

    Raises:
        UserError: A row can't be used, or the model or reward can't be loaded.
    """
    known: dict[str, Any] = {name: _first_of(data, args) if is_stream(data) else data for name, data in rows.items()}
    tokenizer = load_tokenizer(source["model"])
    trains_reward = args.checkpoint_kind == "reward"
    check_models(kind, source, args)
    documents = READERS[kind](known, tokenizer, args)
    device = Device.here()
    dtype = torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32
    model = outline(
        source["model"],
        reward=trains_reward and reward_config_of(source["model"], args),
        quantization=source["quantization"],
        lora=lora,
        dtype=dtype,
        fast=device.dtype,
        frozen_layers=getattr(args, "freeze_layers", 0),
    )
    if source["quantization"] is not None and not model.is_adapter:
        raise UserError("A quantised model trains only through an adapter; give lora.")
    if kind == "prompts":
        check_room(model.model, args, *tokenized_prompts(known, tokenizer, args, source["reward"]).values())
    stages = stages_of(args, len(documents))
    batch = max(stage.batch for stage in stages.stages) if stages else None
    try:
        needs = needs_of(kind, source, args, model, documents, device, batch_size=batch)
        needed = device.needed(needs.peak, sum(needs.stays.values()))
        memory = [*needs.lines(), *(("memory, note", note) for note in needs.notes)]
    except Untraceable as error:  # no reason not to train it
        needed, memory = device.needed(model.base_bytes, model.base_bytes), [("memory, weights alone", str(error))]
    steps, where, free = steps_of(args, len(documents)), device.name, int(device.memory)
    disk, free_disk = disk_needs(args, model.model, steps), free_bytes(args.output_dir)
    trained = trained_weights(source, args, model)
    setting = Setting(args.uses, args.device.type, recomputes=args.recomputes)
    lines = [
        ("model", f"{model.name}, {shown_count(model.total)} weights, {shown_count(trained)} trained"),
        ("data", f"{_of_stream(rows)}{len(documents)} rows, {describe_lengths(documents)}"),
        *([] if getattr(args, "needs_reference", True) else [("reference", "none: the loss needs none")]),
        ("acceleration", describe(decide(model.model, setting, args.acceleration))),
        ("steps", describe_steps(args, steps, len(documents))),
        *memory,
        ("memory, about", f"{shown_size(needed)}, with {shown_size(free)} free on {where}"),
        _disk_line(disk, free_disk),
    ]
    plan = DryRun(lines, needed, disk, where, free, free_disk)
    return of_members(plan, args, len(documents), model) if isinstance(args, EnsembleConfig) else plan


def _first_of(stream: Any, args: Any) -> Any:
    """The first rows of a stream to train on, as pairs or rankings if it is of another layout."""
    first = first_rows(stream)
    read = read_as_preferences(stream, first, "train_dataset", plain=args.plain_pairs)
    return first if read is stream else first_rows(read)


def _of_stream(rows: Mapping[str, Any]) -> str:
    return "a stream; of its first " if is_stream(rows["train_dataset"]) else ""


def of_members(plan: DryRun, args: EnsembleConfig, rows: int, model: Outline) -> DryRun:
    """The plan of an ensemble, given that of a member on all rows: one is trained at a time, and all are kept."""
    drawn = rows if args.bootstrap is None else round(args.bootstrap * rows)
    steps = f"{steps_of(args, drawn)} of each member, of "
    lines = [
        (name, steps + text.partition(", of ")[2] if name == "steps" else text)
        for name, text in plan.lines
        if not name.startswith("disk")
    ]
    draws = "on all rows" if args.bootstrap is None else f"on about {drawn} rows each, drawn with replacement"
    lines.insert(2, ("members", f"{args.n}, one after another, {draws}"))
    kept = model.base_bytes + args.n * 4.0 * model.trained if model.is_adapter else args.n * 4.0 * model.total
    disk = plan.disk.of_members(args.n)
    lines += [
        ("memory of all members, about", shown_size(kept)),
        _disk_line(disk, plan.free_disk),
    ]
    return replace(plan, lines=lines, memory=max(plan.memory, kept), disk=disk)


def _disk_line(disk: DiskNeeds, free: float) -> tuple[str, str]:
    return "disk, about", f"{shown_size(disk.peak)} at most, with {shown_size(free)} free; {disk.describe()}"
