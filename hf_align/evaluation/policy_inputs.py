"""What an evaluation of policies is given, checked before any weight is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray

from hf_align.collators.checks import read_rows, refuse_own_columns
from hf_align.collators.prompts import OWN_COLUMNS
from hf_align.collators.rows import Side, key_of, read_prompt
from hf_align.collators.tools import NESTED
from hf_align.data.domains import domains_of
from hf_align.errors import UserError
from hf_align.models.ensemble_files import member_sources
from hf_align.models.kinds import check_head, check_is_policy
from hf_align.models.sources import check_source
from hf_align.rewards import Judge
from hf_align.rewards.reward import check_functions
from hf_align.rollouts.sampler import check_room


@dataclass(frozen=True)
class Asked:
    """The N prompts that every policy answers.

    Attributes:
        prompts: `[N]` texts or messages.
        options: `[N]` `tools` and `chat_template_kwargs` of each, for the chat template.
        domains: `[N]` part of the data that each belongs to.
        columns: Further columns, for judges that are functions.
        units: `[N]` number of the distinct prompt, which the bootstrap draws.
    """

    prompts: list[Side]
    options: list[dict[str, Any]]
    domains: list[str]
    columns: Mapping[str, list[Any]]
    units: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.prompts)


def read_asked(rows: Dataset) -> Asked:
    """Read the prompts of a data set.

    Args:
        rows: Column `prompt`; optionally `domain` or `subset`, `tools` and `chat_template_kwargs`, and what the judge
            reads.

    Raises:
        UserError: A prompt is missing or malformed, or a column has a name that rewards get from the trainer.
    """
    refuse_own_columns(rows.column_names, OWN_COLUMNS, "data")
    domains = domains_of(rows)
    plain = rows.with_format(None)
    prompts = read_rows(plain, read_prompt, "data")
    options = [dict(row) for row in plain.select_columns([name for name in NESTED if name in rows.column_names])]
    columns = {name: plain[name][:] for name in rows.column_names if name != "prompt"}
    # In the order of rows: hashes of texts differ from process to process, and so would what the bootstrap draws.
    seen: dict[int, int] = {}
    units = np.array([seen.setdefault(key_of(prompt), len(seen)) for prompt in prompts], dtype=np.intp)
    return Asked(prompts, options or [{}] * len(prompts), domains, columns, units)


def check_sizes(sizes: Mapping[str, int], least: int = 1) -> None:
    """Refuse numbers that are too small, by the name of their argument."""
    for name, value in sizes.items():
        if value < least:
            raise UserError(f"{name} is {value}; give a number from {least}")


def check_policies(names: Sequence[str], asked: Asked, max_new_tokens: int) -> None:
    """Refuse policies that don't exist, can't write, are named twice or have no room for a response."""
    if len({os.path.abspath(name) if os.path.isdir(name) else name for name in names}) < len(names):
        raise UserError("model names the same policy twice; name each once")
    for name in names:
        check_source(name)
        check_is_policy(name, "model")
    for name in names:
        check_room(name, asked.prompts, asked.options, max_new_tokens)


def check_judge(judge: Any, columns: Sequence[str]) -> None:
    """Refuse a judge without a trained head, or a function that asks for what it can't get.

    Args:
        judge: See `judge_scores`.
        columns: The data's columns, `prompt` left out.
    """
    if isinstance(judge, str):
        sources = member_sources(judge)
        for source in sources:
            check_source(source)
        try:
            for source in sources:
                check_head(source)
        except UserError as error:
            raise UserError(f"judge: {error}") from None
    elif judge is not None and not isinstance(judge, Judge):  # a judge of pairs is checked by whoever makes it
        check_functions(judge, columns, ("finished",))
