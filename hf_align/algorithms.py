"""The training algorithms by name: trainer, config, kind of rows and further models.

Only names and dotted strings, so that any module can import this one cheaply. Another package adds an `Algorithm` under
the entry-point group `hf_align.algorithms`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from hf_align.errors import UserError

ENTRY_POINTS = "hf_align.algorithms"
Rows = Literal["pairs", "comparisons", "prompts", "demonstrations"]
"""Kinds of rows; comparisons are pairs or rankings."""
COLUMNS: Mapping[Rows, tuple[str, ...]] = {
    "pairs": ("prompt", "chosen", "rejected"),
    "comparisons": ("prompt", "chosen", "rejected"),
    "prompts": ("prompt",),
    "demonstrations": ("prompt", "completion"),
}
"""Columns of each kind in its first form; docs/how-to/data.md has the others."""
Need = Literal["reference", "reward", "value", "label"]
Curves = tuple[tuple[str, str], ...]
"""Logged names of curves, with their titles."""
REWARD_CURVES: Curves = (
    ("loss", "loss"),
    ("accuracy", "pairs ranked right"),
    ("margin", "difference of rewards"),
)
PREFERENCE_CURVES: Curves = (
    ("loss", "loss"),
    ("rewards/accuracies", "pairs ranked right"),
    ("rewards/margins", "reward margin"),
)


@dataclass(frozen=True)
class Algorithm:
    """A training algorithm, which has a command of the same name.

    Attributes:
        name: Name of its command, also in recipes and cards.
        trainer: "module:class".
        config: "module:class" of the trainer's options.
        rows: Kind of rows that it trains on.
        columns: Columns that each row must have. Default: those of its kind of rows.
        trains: The model that it trains: a policy, or a reward model.
        needs: Models besides the trained one: a reward must be given, a reference has a default, a value model is
            created (PPO's with `baseline="value"`, the default), and a label is a reward or a judge, one of which must
            be given.
        summary: One line for lists.
        curves: Logged values that plots show.
        run: "module:class" of its runs from a recipe, a `Run`.
        prefix: What the names of its metrics begin with in the record of a run. Default: its name.

    Example:
        >>> from hf_align.algorithms import ALGORITHMS
        >>> dpo = ALGORITHMS["dpo"]
        >>> dpo.rows, dpo.needs
        ('pairs', ('reference',))
        >>> dpo.load()[1].__name__
        'DPOConfig'
    """

    name: str
    trainer: str
    config: str
    rows: Rows = "pairs"
    needs: tuple[Need, ...] = ()
    summary: str = ""
    curves: Curves = ()
    run: str = "hf_align.experiments.run:Run"
    columns: tuple[str, ...] = ()
    trains: Literal["policy", "reward"] = "policy"
    prefix: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", self.columns or COLUMNS[self.rows])
        object.__setattr__(self, "prefix", self.prefix or self.name)

    def load(self) -> tuple[type[Any], type[Any]]:
        """Import the trainer's class and the config's."""
        return self._class(self.trainer), self._class(self.config)

    def load_run(self) -> type[Any]:
        """Import the class of its runs."""
        return self._class(self.run)

    def _class(self, place: str) -> type[Any]:
        module, _, name = place.partition(":")
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise UserError(f"algorithm {self.name}: {place} can't be imported: {error}") from error


class Algorithms(Mapping[str, Algorithm]):
    """Algorithms of this package and of others; the latter are imported on first lookup.

    Args:
        builtin: This package's; another package's of the same name is ignored.
    """

    def __init__(self, *builtin: Algorithm) -> None:
        self.builtin = {each.name: each for each in builtin}

    @cached_property
    def third_party(self) -> dict[str, EntryPoint]:
        """Other packages' entry points by name."""
        return {each.name: each for each in entry_points(group=ENTRY_POINTS) if each.name not in self.builtin}

    def __getitem__(self, name: str) -> Algorithm:
        if name in self.builtin:
            return self.builtin[name]
        entry = self.third_party[name]
        try:
            algorithm = entry.load()
        except Exception as error:  # whatever another package's import raises
            raise UserError(f"algorithm {name}: {entry.value} can't be imported: {error}") from error
        if not isinstance(algorithm, Algorithm) or algorithm.name != name:
            raise UserError(f"algorithm {name}: {entry.value} is not an hf_align.algorithms.Algorithm of that name")
        return algorithm

    def of_trainer(self, trainer: type[Any]) -> Algorithm | None:
        """The algorithm of a trainer's class, or of the nearest class that it is made from; None for others.

        Args:
            trainer: The class. Other packages' algorithms are imported only if it isn't one of ours.
        """
        for each in trainer.__mro__:
            place = f"{each.__module__}:{each.__qualname__}"
            if (found := next((a for a in self.builtin.values() if a.trainer == place), None)) is not None:
                return found
            if (found := self._third_party_of(place)) is not None:
                return found
        return None

    def _third_party_of(self, place: str) -> Algorithm | None:
        """Another package's algorithm with this trainer; one that can't be imported is nobody's."""
        for name in self.third_party:
            with suppress(UserError):
                if self[name].trainer == place:
                    return self[name]
        return None

    def __iter__(self) -> Iterator[str]:
        return iter((*self.builtin, *self.third_party))

    def __len__(self) -> int:
        return len(self.builtin) + len(self.third_party)


ALGORITHMS = Algorithms(
    Algorithm(
        "sft",
        "hf_align.trainers.sft:SFTTrainer",
        "hf_align.trainers.sft:SFTConfig",
        "demonstrations",
        summary="train a model on demonstrations, with TRL's SFTTrainer",
        curves=(("loss", "loss"), ("mean_token_accuracy", "tokens predicted right")),
        run="hf_align.experiments.sft:SFTRun",
    ),
    Algorithm(
        "reward",
        "hf_align.trainers.reward:RewardTrainer",
        "hf_align.trainers.reward:RewardConfig",
        "comparisons",
        summary="train a reward model on pairs or rankings of responses",
        curves=REWARD_CURVES,
        trains="reward",
        prefix="rm",
    ),
    Algorithm(
        "ensemble",
        "hf_align.trainers.reward:RewardTrainer",
        "hf_align.trainers.ensemble_config:EnsembleConfig",
        "comparisons",
        summary="train an ensemble of reward models on bags of pairs or rankings",
        curves=REWARD_CURVES,
        run="hf_align.experiments.ensemble:EnsembleRun",
        trains="reward",
        prefix="rm",
    ),
    Algorithm(
        "dpo",
        "hf_align.trainers.dpo:DPOTrainer",
        "hf_align.trainers.dpo:DPOConfig",
        needs=("reference",),
        summary="train a policy on preference pairs with DPO or another loss (simpo and sft: without a reference)",
        curves=PREFERENCE_CURVES,
    ),
    Algorithm(
        "ipo",
        "hf_align.trainers.dpo:IPOTrainer",
        "hf_align.trainers.dpo:IPOConfig",
        needs=("reference",),
        summary="train a policy on preference pairs with IPO",
        curves=PREFERENCE_CURVES,
    ),
    Algorithm(
        "ppo",
        "hf_align.trainers.ppo.trainer:PPOTrainer",
        "hf_align.trainers.ppo.config:PPOConfig",
        "prompts",
        ("reference", "reward", "value"),
        "train a policy on a reward with PPO, RLOO, GRPO or REINFORCE",
        (
            ("objective/scores", "score"),
            ("objective/kl", "KL from the reference (nats)"),
            ("kl_coef", "KL coefficient"),
        ),
    ),
    Algorithm(
        "online-dpo",
        "hf_align.trainers.online.trainer:OnlineDPOTrainer",
        "hf_align.trainers.online.config:OnlineDPOConfig",
        "prompts",
        ("reference", "label"),
        "train a policy on pairs of its own samples with DPO, IPO or another loss",
        (
            ("objective/scores", "score"),
            ("objective/kl", "KL from the reference (nats)"),
            ("rewards/margins", "reward margin"),
        ),
        "hf_align.experiments.online:OnlineRun",
    ),
)
"""Every algorithm by name, which is also its command's name."""
