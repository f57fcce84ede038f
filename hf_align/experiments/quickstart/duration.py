"""How long a quickstart will take on this machine, from the speed of its matrix products."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from hf_align.models.precision import compute_dtype, multiplications_per_second


@dataclass(frozen=True)
class Measured:
    """A run of the full profile.

    Attributes:
        machine: Where it ran.
        speed: Operations per second of that machine in matrix products.
        seconds: What each stage took.
    """

    machine: str
    speed: float
    seconds: Mapping[str, float]


MEASURED = {
    torch.float32: Measured(
        "one core with AVX2",
        76e9,
        {
            "base": 10,
            "reward": 2750,
            "dpo": 444,
            "ipo": 461,
            "ppo": 1696,
            "evaluation/reward": 164,
            "evaluation/policies": 533,
        },
    ),
    torch.bfloat16: Measured(
        "two cores with avx512_bf16",
        420e9,
        {
            "base": 18,
            "reward": 715,
            "dpo": 106,
            "ipo": 111,
            "ppo": 560,
            "evaluation/reward": 44,
            "evaluation/policies": 115,
        },
    ),
}
"""By the dtype in which a CPU computes; see docs/results/README.md."""


def forecast(stages: Sequence[str], speed: float | None = None) -> str:
    """Say in one line how long stages of the full profile take on this machine's CPU.

    Args:
        stages: Names of the stages to come.
        speed: Operations per second in matrix products. Default: measured, which takes a moment.
    """
    dtype = compute_dtype()
    own, best = MEASURED[dtype], MEASURED[torch.bfloat16]
    speed = speed or multiplications_per_second(dtype)
    minutes = sum(own.seconds[name] for name in stages) * own.speed / speed / 60
    name = str(dtype).removeprefix("torch.")
    line = f"this will take about {minutes:.0f} minutes here ({name} at {speed / 1e9:.0f} GFLOP/s)"
    if dtype == torch.bfloat16:
        return line
    return f"{line}; {best.machine} take {sum(best.seconds[name] for name in stages) / 60:.0f}"
