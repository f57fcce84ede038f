"""Options of a benchmark, and the budget that all its runs have."""

from __future__ import annotations

from dataclasses import dataclass, field

from hf_align.errors import UserError
from hf_align.fields import check_fields


@dataclass(frozen=True)
class Budget:
    """What every training may use. A run ends at the first limit that it reaches.

    Attributes:
        samples: Rows of a run: sampled responses of an algorithm that samples, pairs or demonstrations of another.
        steps: Optimizer steps, in place of `samples`.
        seconds: Wall clock of the training: from its first step to the end of the step in which they have passed.
        kl: KL of the policy from the base, in nats per response to prompts that nothing trains on.
        passes: How often each row is trained on.
        kl_every: Steps between two measurements of the KL.
        kl_prompts: Prompts that the KL is measured on, which are left out of the training.

    Example:
        >>> from hf_align.experiments.benchmark.config import Budget
        >>> Budget(samples=512, kl=10.0).limits
        {'samples': 512, 'kl': 10.0}
    """

    samples: int | None = field(
        default=None,
        metadata={
            "range": "[1, inf)",
            "help": "Rows of a run: sampled responses of an algorithm that samples, pairs or demonstrations of others.",
        },
    )
    steps: int | None = field(
        default=None, metadata={"range": "[1, inf)", "help": "Optimizer steps of a run, in place of samples."}
    )
    seconds: float | None = field(
        default=None,
        metadata={
            "range": "(0, inf)",
            "help": "Wall clock of a training: it ends with the step in which they have passed.",
        },
    )
    kl: float | None = field(
        default=None,
        metadata={
            "range": "(0, inf)",
            "help": "KL of the policy from the base at which a training ends, in nats per response to prompts that "
            "nothing trains on. Takes lora.",
        },
    )
    passes: int = field(default=1, metadata={"range": "[1, inf)", "help": "How often each row is trained on."})
    kl_every: int = field(
        default=4, metadata={"range": "[1, inf)", "help": "Steps from one measurement of the KL to the next."}
    )
    kl_prompts: int = field(
        default=32,
        metadata={
            "range": "[1, inf)",
            "help": "Prompts that the KL is measured on, one response each; they are left out of the training.",
        },
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.limits:
            raise UserError("budget has no limit; give samples, steps, seconds or kl")
        if self.samples is not None and self.steps is not None:
            raise UserError("budget has samples and steps, which both set the length of a training; give one of them")

    @property
    def limits(self) -> dict[str, float]:
        """The limits that there are, by name."""
        names = ("samples", "steps", "seconds", "kl")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class BenchmarkConfig:
    """Options of `hf-align benchmark` besides its model, data, judge and algorithms.

    Example:
        >>> from hf_align.experiments.benchmark.config import BenchmarkConfig
        >>> BenchmarkConfig("out", seeds=3).seed_list
        (0, 1, 2)
    """

    output_dir: str = field(metadata={"help": "Folder of everything: runs, benchmark.json, table and page."})
    seeds: int | list[int] = field(
        default=1,
        metadata={
            "help": "Seeds of the runs: a number of them, from 0, or a list. A seed sets a run's rows and their order, "
            "initial weights and sampling; the data sets and held-out prompts are the same for all."
        },
    )
    max_new_tokens: int = field(
        default=64,
        metadata={
            "range": "[1, inf)",
            "help": "Length limit of a response in tokens, in evaluations and of algorithms that sample.",
        },
    )
    eval_batch_size: int = field(default=32, metadata={"range": "[1, inf)", "help": "Prompts answered together."})
    keep: bool = field(
        default=False,
        metadata={
            "help": "Keep checkpoints and policies of finished runs. False: only results, with all responses, logs and "
            "records stay."
        },
    )

    def __post_init__(self) -> None:
        check_fields(self)
        seeds = self.seed_list
        if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
            raise UserError(f"seeds is {self.seeds}; give a number from 1, or a list of different numbers from 0")

    @property
    def seed_list(self) -> tuple[int, ...]:
        """The seeds."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)
