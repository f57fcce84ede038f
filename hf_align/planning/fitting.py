"""What to change so that a run fits a device, and the largest micro-batch that fits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hf_align.layout.cost import branch_work
from hf_align.planning.lengths import is_rollout, lengths_of
from hf_align.planning.settings import Settings
from hf_align.trainers.data import batches_of, spread_rows

PACKING_SAVES = 0.1
"""Share of the encoded tokens, padding included, from which packing short rows together is suggested."""


def cheapest_changes(settings: Settings) -> dict[str, Any] | None:
    """The cheapest changes with which a run fits; None if there are none.

    From cheap to dear: short rows packed together, a smaller micro-batch with more accumulation, selective and full
    recomputation, LoRA, weights in 8 and in 4 bits. Each from the second on is tried with the largest micro-batch that
    fits, and divides the given one, so that as many rows make a step.
    """
    if (packing := row_tokens(settings)) is not None:
        changes: dict[str, Any] = {"row_tokens": packing}
        if settings.changed(**changes).fits:
            return changes
    for changes in _changes(settings):
        changed = settings.changed(**changes)
        if changed.least_bytes > changed.device.memory:
            continue
        args = changed.args
        whole, unit = args.per_device_train_batch_size, getattr(args, "num_samples", 1)
        sizes = [size for size in range(unit, whole + 1, unit) if whole % size == 0] or [whole]
        if size := _largest(sizes, lambda size, changed=changed: changed.changed(**_batch(changed.args, size)).fits):
            return {**changes, **_batch(args, size)}
    return None


def row_tokens(settings: Settings) -> int | None:
    """A `row_tokens` with which the data's short rows, packed together, take notably fewer tokens; None if none does.

    It is the longest row's length, so that no row gets wider than it would be anyway.
    """
    args, documents = settings.args, settings.documents
    if documents is None or is_rollout(args) or getattr(args, "row_tokens", 0) is not None:
        return None
    if settings.needs.layout != "branch":
        return None
    longest = max(len(prompt) + sum(map(len, responses)) for prompt, responses in documents)
    some = lengths_of([documents[number] for number in spread_rows(len(documents))])
    batches = batches_of(some, args.per_device_train_batch_size)
    plain = sum(branch_work(batch).tokens for batch in batches)
    packed = sum(branch_work(batch, row_tokens=longest).tokens for batch in batches)
    return longest if packed <= (1 - PACKING_SAVES) * plain else None


def largest_batch(settings: Settings) -> int | None:
    """Rows of the largest micro-batch that fits, all else as it is; None if the smallest doesn't.

    Memory grows evenly with rows, so the next size tried is where the line through the last two would fill the device.
    """
    unit, room = getattr(settings.args, "num_samples", 1), settings.device.memory

    def needed(units: int) -> float:
        values: dict[str, Any] = {"per_device_train_batch_size": units * unit}
        if is_rollout(settings.args):
            values["rollout_batch_size"] = None  # follows from the others
        return settings.changed(**values).device_bytes

    fits, size = 1, needed(1)
    if size > room:
        return None
    above, last, bytes_at_last = None, 2, needed(2)
    while True:
        if bytes_at_last <= room:
            slope, fits, size = (bytes_at_last - size) / (last - fits), last, bytes_at_last
        else:
            slope, above = (bytes_at_last - size) / (last - fits), last
        if above is not None and above - fits <= 1:
            return fits * unit
        next_ = fits + max(1, int((room - size) / slope)) if slope > 0 else 2 * fits
        last = min(next_, 4 * fits) if above is None else min(next_, above - 1)
        bytes_at_last = needed(last)


def _largest(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The largest of growing sizes that fits, of which all up to it do; None if the first doesn't."""
    if not fits(sizes[0]):
        return None
    low, high = 1, len(sizes)  # the first `low` fit, those from `high` on don't
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if fits(sizes[middle]) else (low, middle)
    return sizes[low - 1]


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


def _batch(args: Any, size: int) -> dict[str, Any]:
    if size == args.per_device_train_batch_size:
        return {}
    accumulation = args.gradient_accumulation_steps * args.per_device_train_batch_size // size
    return {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation}
