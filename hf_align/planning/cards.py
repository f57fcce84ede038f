"""GPUs by name: what they have, and seconds of a piece of work from their stated peaks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from hf_align.planning.work import Pass, Work

PRODUCTS, STREAM = 0.75, 0.8
"""Share of the peak rate and of the peak bandwidth that kernels reach. That of products is what bfloat16 products of a
1B Llama's sizes reached on an H200 (benchmarks/results/gpu-1b-dpo-chat-bf16.json); on other cards it is assumed, and
that of the bandwidth is assumed for all."""
LAUNCH = 4e-5
"""Seconds between the starts of two kernels, which Python, autograd and the driver need. A 1B Llama's steps on an
H200's host took 39 (PPO), 66 (reward model) and 84 µs (DPO) a kernel at the median, the fastest ones 18 to 44
(benchmarks/results/gpu-1b-*.json)."""


@dataclass(frozen=True)
class Card:
    """A GPU as its maker states it.

    Attributes:
        name: Its name.
        memory: GiB that torch says it has, which is less than it is sold with.
        half: 10¹² operations a second in bfloat16, or in float16 where it lacks that; dense.
        single: In float32 without TF32.
        bandwidth: GB a second of its memory.
        source: NVIDIA's document that states the rates.
        bfloat16: Whether it computes in bfloat16.
    """

    name: str
    memory: float
    half: float
    single: float
    bandwidth: float
    source: str
    bfloat16: bool = True

    @property
    def dtype(self) -> torch.dtype:
        """The fast dtype."""
        return torch.bfloat16 if self.bfloat16 else torch.float16

    def seconds(self, work: Work) -> float:
        """Seconds of a piece of work: each kernel by its operations or its bytes, and no faster than they start."""
        stream, rates = STREAM * self.bandwidth * 1e9, {torch.float32: self.single, torch.int8: 2 * self.half}
        total = 0.0
        for kernel, count in work.counts.items():
            seconds = kernel.bytes / stream
            if not isinstance(kernel, Pass):
                rate = PRODUCTS * rates.get(kernel.dtype, self.half) * 1e12
                seconds = max(seconds, kernel.operations / rate)
            total += count * seconds
        return max(total, LAUNCH * work.calls)

    def described(self) -> str:
        """The rates, and where they are from."""
        return (
            f"{self.name}: {self.half:g} TFLOP/s in 16 bits and {self.bandwidth:g} GB/s ({self.source}), of which "
            f"products reach {PRODUCTS:.0%} (measured on an H200, elsewhere assumed) and passes over memory "
            f"{STREAM:.0%} (assumed); a kernel every {LAUNCH * 1e6:.0f} µs at most (an H200's host took 18 to 84)"
        )


CARDS = {
    "t4": Card("T4", 14.5, 65, 8.1, 320, "T4 datasheet", bfloat16=False),
    "v100-16gb": Card("V100 16GB", 15.7, 125, 15.7, 900, "V100 datasheet, SXM2", bfloat16=False),
    "v100-32gb": Card("V100 32GB", 31.7, 125, 15.7, 900, "V100 datasheet, SXM2", bfloat16=False),
    "rtx3090": Card("RTX 3090", 23.6, 71, 35.6, 936, "GA102 whitepaper"),
    "rtx4090": Card("RTX 4090", 23.6, 165.2, 82.6, 1008, "Ada whitepaper"),
    "l4": Card("L4", 22.0, 121, 30.3, 300, "L4 datasheet"),
    "a10": Card("A10", 21.9, 125, 31.2, 600, "A10 datasheet"),
    "a6000": Card("RTX A6000", 47.4, 154.8, 38.7, 768, "RTX A6000 datasheet"),
    "l40s": Card("L40S", 44.3, 362, 91.6, 864, "L40S datasheet"),
    "a100-40gb": Card("A100 40GB", 39.3, 312, 19.5, 1555, "A100 datasheet, SXM4"),
    "a100-80gb": Card("A100 80GB", 79.1, 312, 19.5, 2039, "A100 datasheet, SXM4"),
    "h100": Card("H100 80GB", 79.1, 989, 67, 3350, "H100 datasheet, SXM5"),
    "h200": Card("H200", 139.7, 989, 67, 4800, "H200 datasheet, SXM5"),
}
"""GPUs by name, without spaces."""
SAME = {"a100": "a100-80gb", "v100": "v100-16gb", "a10g": "a10", "3090": "rtx3090", "4090": "rtx4090"}
"""Other names: of a card that there is with several sizes of memory, the usual one; an A10G is near an A10."""


def card_named(name: str) -> Card | None:
    """The card of this name, in any case and with any spaces; None if the table has none."""
    key = name.lower().replace(" ", "").replace("_", "-").removeprefix("nvidia-").removeprefix("nvidia")
    return CARDS.get(SAME.get(key, key))


def stand_in(memory: float) -> Card:
    """The slowest card with bfloat16 and so many bytes, or nearly, whose rates stand for an unnamed one's."""
    able = [card for card in CARDS.values() if card.bfloat16]
    enough = [card for card in able if card.memory * 2**30 >= 0.9 * memory]
    return min(enough or able[-1:], key=lambda card: (card.half, card.bandwidth))
