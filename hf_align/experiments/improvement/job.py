"""What the rounds of a run are made from: a checked recipe, its prompts, and the folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from peft import LoraConfig

from hf_align.collators.checks import as_dataset, read_rows
from hf_align.collators.rows import Pair, Side, read_pair, read_prompt
from hf_align.collators.tools import NESTED
from hf_align.data.layouts.recognition import prompt_rows, trained_rows
from hf_align.data.parts import Parts, digest
from hf_align.errors import UserError
from hf_align.experiments.improvement.config import ImprovementConfig
from hf_align.experiments.improvement.judging import RecipeJudge, StoredJudge
from hf_align.experiments.improvement.rule import resamples_for
from hf_align.files import write_json
from hf_align.models.quantized import Quantization
from hf_align.progress import Progress
from hf_align.statistics import Resampling

SETTINGS, POLICY, PARTS, DIGESTS = "improve.json", "policy", "parts", "digests"
DATA = ("eval_dataset", "train_dataset", "votes")
"""Keys of the recipe that name rows."""


@dataclass(frozen=True)
class Prompts:
    """Prompts of one data set.

    Attributes:
        contents: `[N]` texts or messages.
        options: `[N]` `tools` and `chat_template_kwargs` of each, for the chat template.
    """

    contents: list[Side]
    options: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.contents)

    @cached_property
    def keys(self) -> list[str]:
        """`[N]` digests, the same for equal prompts in any process."""
        return [digest([content, option]) for content, option in zip(self.contents, self.options, strict=True)]

    @property
    def units(self) -> NDArray[np.intp]:
        """`[N]` number of each one's distinct prompt, which the bootstrap draws."""
        return numbered(self.keys)

    def only(self, rows: Sequence[int]) -> Prompts:
        """Those in these rows."""
        return Prompts([self.contents[row] for row in rows], [self.options[row] for row in rows])


@dataclass(frozen=True)
class Votes:
    """Pairs that people labelled.

    Attributes:
        pairs: `[N]` pairs, the response that people prefer first.
    """

    pairs: list[Pair]

    @property
    def units(self) -> NDArray[np.intp]:
        """`[N]` number of each one's distinct prompt."""
        return numbered([digest(pair.prompt) for pair in self.pairs])


def numbered(keys: Sequence[str]) -> NDArray[np.intp]:
    """Equal keys get equal numbers, in the order in which they first occur."""
    numbers: dict[str, int] = {}
    return np.asarray([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.intp)


def read_prompts(rows: Dataset, name: str, limit: int | None = None) -> Prompts:
    """The prompts of a data set.

    Args:
        rows: Column `prompt`; optionally `tools` and `chat_template_kwargs`.
        name: The data set's name in messages.
        limit: Only the first rows.

    Raises:
        UserError: There is no prompt column, or a prompt is missing or malformed.
    """
    plain = as_dataset(prompt_rows(rows, name), name, ("prompt",)).with_format(None)
    plain = plain.select(range(min(len(plain), limit or len(plain))))
    contents = read_rows(plain, read_prompt, name)
    columns = [column for column in NESTED if column in plain.column_names]
    rows_of = cast(Iterable[Mapping[str, Any]], plain)
    options = [{column: row[column] for column in columns if row[column] is not None} for row in rows_of]
    return Prompts(contents, options)


def separate(prompts: Prompts, held_out: Prompts) -> Prompts:
    """The different prompts that aren't held out, in their order.

    Raises:
        UserError: None is left.
    """
    out, first = set(held_out.keys), dict[str, int]()
    for row, key in enumerate(prompts.keys):
        if key not in out:
            first.setdefault(key, row)
    if not first:
        raise UserError("train_dataset has no prompt that eval_dataset doesn't have, too; give other prompts")
    return prompts.only(list(first.values()))


def read_votes(rows: Dataset, limit: int | None = None) -> Votes:
    """Pairs with a prompt, chosen and rejected.

    Raises:
        UserError: A row is malformed, or has no prompt of its own.
    """
    plain = as_dataset(trained_rows(rows, "votes", plain=True), "votes").with_format(None)
    pairs = read_rows(plain.select(range(min(len(plain), limit or len(plain)))), read_pair, "votes")
    if any(pair.prompt is None for pair in pairs):
        raise UserError("votes has no column prompt; give prompt, chosen and rejected")
    return Votes(pairs)


@dataclass(frozen=True)
class Job:
    """Inputs of all steps.

    Attributes:
        folder: The output folder.
        settings: Everything that changes the run's results, as JSON has it.
        model: Folder or Hub id of the policy that the first round starts from.
        config: Options of the rounds.
        training: Options of `DPOConfig` that were given.
        seed: Seed of everything.
        lora: Adapter that the first round makes; None where all weights or the model's own adapter are trained.
        quantization: Quantisation of all policies.
        judge: Judges the training's pairs.
        held_out_judge: Judges the policies; None where people's votes do.
        prompts: Prompts to train on.
        held_out: Prompts to evaluate on.
        votes: Pairs that people labelled.
        progress: Receiver of progress.
    """

    folder: Path
    settings: dict[str, Any]
    model: str
    config: ImprovementConfig
    training: dict[str, Any]
    seed: int
    lora: LoraConfig | None
    quantization: Quantization
    judge: RecipeJudge
    held_out_judge: RecipeJudge | None
    prompts: Prompts
    held_out: Prompts
    votes: Votes | None
    progress: Progress

    def open(self) -> None:
        """Claim the folder, or go on in it.

        Raises:
            UserError: It holds something else, or a run with other settings or data.
        """
        marker = self.folder / SETTINGS
        if not marker.exists():
            if self.folder.exists() and any(self.folder.iterdir()):
                raise UserError(
                    f"output_dir: {self.folder} exists and holds no self-improvement; choose another folder"
                )
            write_json(marker, {**self.settings, DIGESTS: self.digests()})
            return
        before, now = json.loads(marker.read_text(encoding="utf-8")), json.loads(json.dumps(self.settings))
        digests = before.pop(DIGESTS, {})
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                raise UserError(
                    f"output_dir: the run in {self.folder} has {key} {before.get(key)!r}, and the recipe "
                    f"{now.get(key)!r}; give the same, or choose another folder"
                )
        for name, found in self.digests().items():
            if digests.get(name) != found:
                rows = "rows" if name in DATA else "files"
                raise UserError(
                    f"output_dir: {name} has other {rows} than when the run in {self.folder} began, whose samples and "
                    f"pairs belong to those; restore the {rows}, or choose another folder"
                )

    def digests(self) -> dict[str, str]:
        """Digests of rows that stored steps refer to, held-out prompts first, and of judges' files, by recipe's key."""
        votes = [] if self.votes is None else [[each.prompt, each.chosen, each.rejected] for each in self.votes.pairs]
        held_out = [] if self.held_out_judge is None else self.held_out_judge.file_digests()
        files = {"judge": self.judge.file_digests(), "held_out_judge": held_out}
        rows = dict(zip(DATA, (self.held_out.keys, self.prompts.keys, votes), strict=True))
        return {name: digest(content) for name, content in {**rows, **files}.items()}

    def round(self, number: int) -> Path:
        """The folder of a round; 0 is the start."""
        return self.folder / f"round-{number}"

    def policy(self, number: int) -> str:
        """Folder or Hub id of the policy after a round; 0 is the start."""
        return self.model if number == 0 else str(self.round(number) / POLICY)

    def parts(self, number: int) -> Parts:
        """Finished parts of a round's unfinished steps."""
        return Parts(self.round(number) / PARTS)

    def stored(self, number: int, name: str, compute: Callable[[], Any]) -> Any:
        """The result of a step, as JSON: stored earlier, or computed and stored."""
        path = self.round(number) / f"{name}.json"
        if not path.exists():
            write_json(path, compute())
        return json.loads(path.read_text(encoding="utf-8"))

    def stored_judge(self, judge: RecipeJudge, policy: int, number: int, label: str) -> StoredJudge:
        """A judge whose judgements are kept with a round.

        Args:
            judge: The judge.
            policy: The round whose policy judges, where the policy itself does.
            number: The round.
            label: Names its task.
        """
        name = f"{judge.name} (round {policy})" if judge.is_policy else judge.name
        asked = judge.checked(self.policy(policy))
        return StoredJudge(name, asked, self.parts(number), self.config.judge_batch_size, self.progress, label)

    def resampling(self, units: NDArray[np.intp]) -> Resampling:
        """Draws of the distinct prompts, for intervals and the stop rule's tests."""
        resamples = resamples_for(self.config.error_of_a_test, self.config.resamples)
        return Resampling(int(units.max()) + 1, resamples=resamples, seed=self.seed)
