"""The device that a run is planned for: its kind, its memory, and what of that no tensor can have."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from hf_align.errors import UserError
from hf_align.models.precision import compute_dtype
from hf_align.numbers import shown_size
from hf_align.planning.cards import CARDS, Card, card_named, stand_in
from hf_align.planning.margin import Margin, margin_of
from hf_align.planning.probe import PROBE, Probe

CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
EXPONENTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
"""Exponent of 2 by a unit's letter. GPUs are sold in GB and have GiB: a "24 GB" card has 24 GiB, and so 24,576 MB."""
LEAST = 2**20
"""Bytes below which a text without a unit is a slip of the pen, as 24 for 24GB."""


@dataclass(frozen=True)
class Device:
    """A device to train on.

    Attributes:
        kind: "cuda" or "cpu".
        name: Its name, for messages.
        memory: Bytes that a run may take of it.
        dtype: The fast dtype, in which training computes by default.
        card: A named GPU, or the one whose rates stand for a GPU of a size; None: this machine's device.
    """

    kind: Literal["cuda", "cpu"]
    name: str
    memory: float
    dtype: torch.dtype
    card: Card | None = None

    @classmethod
    def here(cls) -> Device:
        """This machine's: the first GPU, else the CPU, with what is free of its memory now."""
        where, free = available_memory()
        return cls("cuda" if torch.cuda.is_available() else "cpu", where, free, compute_dtype())

    @classmethod
    def of(cls, size: str | float) -> Device:
        """A GPU by its name, as "h100" or "a100-40gb", or one with so much memory, as "24GB" or in bytes.

        Raises:
            UserError: It is neither.

        Example:
            >>> from hf_align.planning.device import Device
            >>> Device.of("24GB").memory == 24 * 2**30
            True
            >>> Device.of("l4").memory < 24 * 2**30
            True
        """
        if isinstance(size, str) and (card := card_named(size)) is not None:
            return cls("cuda", card.name, card.memory * 2**30, card.dtype, card)
        memory = read_size(size)
        return cls("cuda", f"a GPU of {shown_size(memory)}", memory, torch.bfloat16, stand_in(memory))

    @property
    def speed(self) -> Card | Probe:
        """What tells the seconds of its work: the named card's stated rates, or measurements of this machine."""
        return PROBE if self.card is None else self.card

    def needed(self, tensors: float, stays: float = 0.0) -> float:
        """Bytes of the device that a run takes whose tensors take so much at their peak, with the margin.

        Args:
            tensors: Bytes of all tensors at the peak.
            stays: Bytes of those that are there throughout.
        """
        return self.margin.needed(tensors, stays)

    @property
    def margin(self) -> Margin:
        """What runs take of it besides their tensors."""
        return margin_of(self.kind)


def read_size(size: str | float) -> float:
    """Bytes of a size as "24GB", "900 MiB" or a number of bytes. Units are powers of 1,024, with "i" or without.

    Raises:
        UserError: It is no size.
    """
    if isinstance(size, str):
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*(?:([KMGT])I?)?B?\s*", size.upper())
        number = 0.0 if match is None else float(match[1]) * 2.0 ** EXPONENTS[match[2] or ""]
        if match is not None and not match[2] and 0 < number < LEAST:
            raise UserError(f"{size!r} is a number of bytes; write its unit, as in {match[1]}GB.")
    else:
        number = float(size)
    if not 0 < number < math.inf:
        raise UserError(f"{size!r} is not an amount of memory; write one like 24GB, or a GPU: {', '.join(CARDS)}.")
    return number


def available_memory() -> tuple[str, int]:
    """The device that training would use, and its free bytes."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(), torch.cuda.mem_get_info()[0]
    free = psutil.virtual_memory().available
    if CGROUP_LIMIT.exists() and (limit := CGROUP_LIMIT.read_text().strip()).isdigit():
        free = min(free, int(limit) - psutil.Process().memory_info().rss)
    return "CPU", free
