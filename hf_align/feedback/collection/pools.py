"""Choice of a round's prompts: by what they are worth, by what is missing, by what is hard, and at random."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, cast

from datasets import Dataset

from hf_align.collators.checks import as_dataset, read_rows
from hf_align.collators.rows import RowProblem
from hf_align.collators.scorable import OF_RESPONSES, read_any_prompt
from hf_align.data.layouts.recognition import is_read, prompt_rows
from hf_align.data.layouts.registry import columns_of
from hf_align.feedback.collection.config import HIGH_VALUE, RANDOM, UNDER_REPRESENTED, CollectionConfig
from hf_align.feedback.collection.domains import Classifier, domain_of
from hf_align.feedback.records import Prompt
from hf_align.feedback.store.queue import draw
from hf_align.feedback.store.store import PreferenceStore
from hf_align.numbers import number_problem

logger = logging.getLogger(__name__)

POOL, DOMAIN, VALUE = ("pool",), ("domain", "category"), ("value", "priority")
"""Columns that say what a prompt is for, what it is about and what it is worth; of two names the first counts."""
ROUNDING = 1e-9
"""What shares such as .4 + .3 + .2 + .1 may be off by."""


@dataclass(frozen=True)
class PoolPrompt:
    """A prompt that can be chosen.

    Attributes:
        prompt: The prompt with its domain; its pool is that of its row.
        value: What it is worth, if the row says so.
        marks: Names of the pools that its row marks it for, by the column `pool` or a true column of the pool's name.
    """

    prompt: Prompt
    value: float | None = None
    marks: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PromptPool:
    """Prompts of a data set, each once.

    Attributes:
        prompts: By id, in the order of the rows.
        repeated: Rows whose prompt an earlier row has.
        high: Value from which a prompt counts as high: the median, if that isn't the lowest value, else the next higher
            one. None where all are equal or there are none.
    """

    prompts: Mapping[str, PoolPrompt]
    repeated: int = 0
    high: float | None = None

    def fits(self, prompt_id: str, pool: str) -> bool:
        """Whether a prompt belongs to a pool; all belong to "random" and "under_represented"."""
        if pool in (RANDOM, UNDER_REPRESENTED):
            return True
        each = self.prompts[prompt_id]
        valued = pool == HIGH_VALUE and each.value is not None and self.high is not None and each.value >= self.high
        return pool in each.marks or valued


@dataclass(frozen=True)
class Chosen:
    """Prompts of a round.

    Attributes:
        prompts: The prompts; `pool` is what each was chosen for.
        counts: Prompts by pool.
        dry: Places that a pool couldn't fill and others took, by pool.
    """

    prompts: list[Prompt]
    counts: dict[str, int]
    dry: dict[str, int]


def read_pool(dataset: Dataset | list[dict[str, Any]], classify: Classifier | None = None) -> PromptPool:
    """Read the prompts of a data set.

    Args:
        dataset: Rows with a `prompt`, or of another layout whose prompt can be read (`messages`, or `chosen` and
            `rejected` with a common beginning). Optional columns: `pool` (a name), `adversarial`, `high_value` or the
            name of another pool (true or false), `domain` or `category` (text), `value` or `priority` (a number).
            Further columns stay with the prompt.
        classify: Names the domain of prompts whose row has none. Default: `guess_domain`, by key words.

    Raises:
        UserError: A row has no usable prompt, or a column has a value of another type.

    Example:
        >>> from hf_align.feedback.collection.pools import read_pool
        >>> pool = read_pool([{"prompt": "Solve for x: 3x = 12"}, {"prompt": "Be mean.", "pool": "adversarial"}])
        >>> [each.prompt.domain for each in pool.prompts.values()]
        ['mathematics', 'other']
    """
    rows = cast(Sequence[Mapping[str, Any]], as_dataset(_with_prompts(dataset), "prompts", ()).with_format(None))
    names = cast(Dataset, rows).column_names
    read = read_rows(rows, lambda row: _read(row, names, classify), "prompts")
    prompts: dict[str, PoolPrompt] = {}
    for each in read:
        prompts.setdefault(each.prompt.id, each)
    values = [each.value for each in prompts.values() if each.value is not None]
    middle, lowest = (median(values), min(values)) if values else (0.0, 0.0)
    high = [value for value in values if value >= middle and value > lowest]
    return PromptPool(prompts, len(read) - len(prompts), min(high, default=None))


def _with_prompts(dataset: Any) -> Any:
    """Rows whose prompts can be read, else those of another layout."""
    if not dataset or is_read(dataset, read_any_prompt, columns_of(dataset)):
        return dataset
    return prompt_rows(dataset, "prompts")


def choose_prompts(
    pool: PromptPool,
    config: CollectionConfig,
    *,
    round: int,
    used: Collection[str] = (),
    comparisons: Mapping[str | None, int] | None = None,
) -> Chosen:
    """Choose the prompts of a round by the shares of the pools.

    Named pools choose first, then domains with the fewest comparisons, then chance. What a pool can't fill goes to the
    others in proportion to their shares, with a warning. The choice depends on the arguments alone, not on the order
    of the rows.

    Args:
        pool: The prompts.
        config: `batch_size`, `pool_shares` and `seed`.
        round: Number of the round, from 0.
        used: Ids of prompts that were chosen before, which are never chosen again.
        comparisons: Comparisons so far by domain (`comparisons_by_domain`). Default: none.

    Returns:
        Up to `batch_size` prompts; fewer when all others were used.

    Example:
        >>> from hf_align.feedback.collection.config import CollectionConfig
        >>> from hf_align.feedback.collection.pools import choose_prompts, read_pool
        >>> pool = read_pool([{"prompt": f"Question {n}?", "domain": "ab"[n > 1]} for n in range(6)])
        >>> config = CollectionConfig(batch_size=2, pool_shares={"under_represented": 1})
        >>> [prompt.domain for prompt in choose_prompts(pool, config, round=0, comparisons={"b": 30}).prompts]
        ['a', 'a']
    """
    order = sorted(pool.prompts.keys() - set(used), key=lambda id: draw(config.seed, "round", round, id))
    left = dict.fromkeys(order)
    places = min(config.batch_size, len(left))
    shares = {name: share for name, share in config.pool_shares.items() if share}
    shares = dict(sorted(shares.items(), key=lambda item: item[0] == UNDER_REPRESENTED))
    if config.random_share > ROUNDING:
        shares[RANDOM] = config.random_share
    pick = {HIGH_VALUE: _most_valuable, UNDER_REPRESENTED: _least_compared(config, comparisons or {}, round)}
    chosen: list[Prompt] = []
    dry: Counter[str] = Counter()
    while places > len(chosen):
        open_pools = {name: share for name, share in shares.items() if name not in dry} or {RANDOM: 1.0}
        quotas = apportion(places - len(chosen), open_pools)
        for name, quota in quotas.items():
            fitting = [id for id in left if pool.fits(id, name)]
            ids = pick.get(name, _first)(pool, fitting, quota)
            chosen += [replace(pool.prompts[id].prompt, pool=name) for id in ids]
            for id in ids:
                del left[id]
            if len(ids) < quota:
                dry[name] = quota - len(ids)
    _say_what_is_dry(pool, set(used), dry, round)
    counts = Counter(prompt.pool for prompt in chosen)
    return Chosen(chosen, dict(counts), dict(dry))


def comparisons_by_domain(store: PreferenceStore) -> dict[str | None, int]:
    """Number of comparisons that a store has of each domain, gold questions not counted."""
    return dict(Counter(task.domain for task in store.tasks().values() if task.gold is None))


def apportion(places: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole numbers in proportion to shares, by largest remainders, the first of equals.

    Example:
        >>> from hf_align.feedback.collection.pools import apportion
        >>> apportion(10, {"a": 0.5, "b": 0.26, "c": 0.24})
        {'a': 5, 'b': 3, 'c': 2}
    """
    total = sum(shares.values())
    exact = {name: places * share / total for name, share in shares.items()}
    whole = {name: int(value + ROUNDING) for name, value in exact.items()}
    largest = sorted(exact, key=lambda name: whole[name] - exact[name])
    for name in largest[: places - sum(whole.values())]:
        whole[name] += 1
    return whole


Pick = Callable[[PromptPool, Sequence[str], int], list[str]]
"""Takes up to a number of prompts from those that fit, which come in random order."""


def _first(pool: PromptPool, ids: Sequence[str], count: int) -> list[str]:
    return list(ids[:count])


def _most_valuable(pool: PromptPool, ids: Sequence[str], count: int) -> list[str]:
    """Highest values first; marked prompts without a value stand behind those with a high one."""

    def value(id: str) -> float:
        given = pool.prompts[id].value
        return float("-inf") if given is None else given

    return sorted(ids, key=value, reverse=True)[:count]


def _least_compared(config: CollectionConfig, comparisons: Mapping[str | None, int], round: int) -> Pick:
    """Prompts of the domain with the fewest comparisons, one after another; each is taken to bring its pairs."""
    n = config.responses_per_prompt
    pairs = min(config.max_pairs, n * (n - 1) // 2)

    def pick(pool: PromptPool, ids: Sequence[str], count: int) -> list[str]:
        by_domain: dict[str | None, list[str]] = {}
        for id in reversed(ids):
            by_domain.setdefault(pool.prompts[id].prompt.domain, []).append(id)
        counts = {domain: comparisons.get(domain, 0) for domain in by_domain}
        chance = {domain: draw(config.seed, "domain", round, domain) for domain in by_domain}
        taken: list[str] = []
        while by_domain and len(taken) < count:
            domain = min(by_domain, key=lambda name: (counts[name], chance[name]))
            taken.append(by_domain[domain].pop())
            counts[domain] += pairs
            if not by_domain[domain]:
                del by_domain[domain]
        return taken

    return pick


def _say_what_is_dry(pool: PromptPool, used: set[str], dry: Mapping[str, int], round: int) -> None:
    """Warn of pools that ran dry in this round; one that was dry before is old news."""
    for name, places in dry.items():
        fitting = [id for id in pool.prompts if pool.fits(id, name)]
        if name != RANDOM and (round == 0 or not used.issuperset(fitting)):
            had = "has no prompts" if not fitting else "has no prompts left"
            logger.warning("round %d: the pool %r %s; places that go to others: %d.", round, name, had, places)


def _read(row: Mapping[str, Any], names: Sequence[str], classify: Classifier | None) -> PoolPrompt:
    """A row's prompt.

    Raises:
        RowProblem: The prompt or a column can't be used.
    """
    content = read_any_prompt(row)
    pool, domain, value = (_first_of(row, columns) for columns in (POOL, DOMAIN, VALUE))
    for name, given in (("pool", pool), ("domain", domain)):
        if given is not None and (not isinstance(given, str) or not given.strip()):
            raise RowProblem(f"a {name} that isn't text")
    if value is not None and (problem := number_problem(value)):
        raise RowProblem(f"a value that is {problem}", "bad_number")
    marks = {name for name in names if row[name] is True} | ({pool} if pool else set())
    if domain is None:
        domain = domain_of(content, classify)
    left_out = {"prompt", *POOL, *DOMAIN, *VALUE, *OF_RESPONSES}
    columns = {name: row[name] for name in names if name not in left_out and row[name] is not None}
    prompt = Prompt(content, pool or RANDOM, domain, columns)
    return PoolPrompt(prompt, None if value is None else float(value), frozenset(marks))


def _first_of(row: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((row[name] for name in names if row.get(name) is not None), None)
