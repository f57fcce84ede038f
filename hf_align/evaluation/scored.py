"""Scores of a whole data set by a reward model, as further columns of its rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import numpy as np
from datasets import Dataset
from scipy.special import expit

from hf_align.collators.checks import PAIR, as_dataset
from hf_align.collators.encoding import PairEncoder
from hf_align.collators.scorable import Layout, Reader, Sample, layout_of, prepare_rows
from hf_align.collators.tools import NESTED
from hf_align.collators.truncation import Limits
from hf_align.data.layouts.recognition import scored_rows
from hf_align.data.parts import Parts, digest
from hf_align.errors import UserError
from hf_align.models.decoders import positions_of
from hf_align.models.digest import weights_digest
from hf_align.models.ensemble import RewardEnsemble, members_of
from hf_align.models.outputs import Output
from hf_align.models.placement import to_gpu
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel
from hf_align.models.scorer import Scorer, ScorerFiles, no_template, read_scorer
from hf_align.models.sources import check_source, is_ensemble
from hf_align.models.text_classifier import TextClassifier
from hf_align.models.vocabulary import check_token_ids
from hf_align.models.wrapper import unwrapped
from hf_align.progress import Progress, Silent
from hf_align.version import versions

BLOCK, CHUNK = 512, 128
"""Responses per part that is kept, and per call of the model; responses of a call have similar lengths."""
LABEL, DEVIATION = "label", "_std"
Row = Mapping[str, Any]
Rows = Iterable[Row]


@dataclass(frozen=True)
class Scored:
    """A scored data set.

    Attributes:
        rows: The data set with the new columns behind its own.
        added: Their names.
        figures: Counts and statistics, which JSON can write.

    Example:
        >>> from datasets import Dataset
        >>> from hf_align import RewardModel
        >>> from hf_align.evaluation import score_dataset
        >>> model = RewardModel.from_backbone("HuggingFaceTB/SmolLM2-135M-Instruct")
        >>> rows = [{"prompt": "The film was", "chosen": " a joy.", "rejected": " too long.", "id": 7}]
        >>> scored = score_dataset(model, Dataset.from_list(rows))
        >>> scored.rows.column_names
        ['prompt', 'chosen', 'rejected', 'id', 'score_chosen', 'score_rejected']
        >>> scored.figures["responses"]
        2
    """

    rows: Dataset
    added: tuple[str, ...]
    figures: dict[str, Any]


def score_dataset(
    model: str | RewardModel | RewardEnsemble | Scorer,
    dataset: Dataset | list[dict[str, Any]],
    *,
    column: str = "score",
    labels: bool = False,
    uncertainty: bool = False,
    max_length: int | None = None,
    output: str | int | None = None,
    chat_template: str | None = None,
    quantization: Quantization = None,
    parts: Parts | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Score every response of a data set.

    Rows are `prompt` with `response` or `completion`, pairs (`chosen`, `rejected`, with `prompt` unless both begin with
    it), comparisons (`response_a`, `response_b`), `responses` to one prompt, or `messages` that end with an answer.
    A response that `finished` says is incomplete (a bool, or a list of them) is scored without an end.

    Args:
        model: A reward model or ensemble, or the folder or Hub id of any (see `load_scorer`), loaded after all rows are
            checked.
        dataset: The rows.
        column: Name of the column of a row's score. Pairs get two (`score_chosen`, `score_rejected`), `responses` a
            list (`scores`).
        labels: Also add to pairs a `label`: sigmoid(score_chosen - score_rejected), the probability that the chosen one
            is better by the Bradley-Terry model, which reward models and DPO train on. Differences of normalised
            rewards are multiplied by the standard deviation that normalising divided them by.
        uncertainty: Of an ensemble: also add the standard deviation of its members' scores, in columns of the scores'
            names with `_std` behind.
        max_length: Tokens of a prompt with its response. Too long: the prompt's beginning is cut, then the response's
            end. Default: the model's positions.
        output: As in `load_scorer`, for a model given by name.
        chat_template: Likewise.
        quantization: Likewise.
        parts: Keeps finished blocks of rows, for jobs that go on after they were killed. Default: none are kept.
        progress: Receiver of progress. Default: none.

    Raises:
        UserError: The model, the columns or rows can't be used, or a score isn't a finite number.
    """
    rows = as_dataset(scored_rows(dataset, "data"), "data", ())
    layout = layout_of(rows.column_names)
    added = new_columns(layout, rows.column_names, column, labels, uncertainty)
    scorer = open_scorer(model, output, chat_template)
    if uncertainty:
        _check_members(scorer)
    limits = Limits(positions_of(scorer.config) if max_length is None else max_length)
    encoder = PairEncoder(scorer.tokenizer) if scorer.reads_end else None
    reader = Reader(layout, encoder, limits, as_turns=scorer.template != "rows")
    records = prepare_rows(rows, reader)
    first = reader.samples(cast(Row, rows.with_format(None)[0]))[0]
    if encoder is None and isinstance(first.prompt, list) and not scorer.tokenizer.chat_template:
        raise no_template(model if isinstance(model, str) else "the model")
    scorer = to_gpu(scorer.load(quantization=quantization), quantization) if isinstance(scorer, ScorerFiles) else scorer
    if encoder is None and max_length is not None:
        scorer.tokenizer.model_max_length = max_length  # such a model cuts its texts itself
    found = _score_rows(scorer, rows, records, reader, parts or Parts(), progress or Silent(), uncertainty)
    scores = [row[:count] for row, count in zip(found, records["count"][:], strict=True)]
    columns = layout.values(column, scores)
    if uncertainty:
        behind = [row[count:] for row, count in zip(found, records["count"][:], strict=True)]
        deviations = layout.values(column, behind)
        columns |= {f"{name}{DEVIATION}": values for name, values in deviations.items()}
    if labels:
        scale = 1.0 if isinstance(scorer.model, TextClassifier) else scorer.model.log_odds
        columns[LABEL] = [float(expit(scale * (better - worse))) for better, worse in scores]
    for name in added:
        rows = rows.add_column(name, columns[name])  # pyright: ignore[reportCallIssue]
    return Scored(rows, added, _figures(layout, records, scores) | _settings(scorer, limits, first))


def new_columns(
    layout: Layout, columns: Sequence[str], column: str, labels: bool, uncertainty: bool = False
) -> tuple[str, ...]:
    """Names of the columns that scoring adds.

    Raises:
        UserError: One of them exists, or labels are wanted for rows that aren't pairs.
    """
    if labels and len(layout.suffixes) != 2:
        raise UserError(f"labels are for pairs; these rows are scored by {' and '.join(layout.columns)}")
    names = layout.names(column)
    deviations = [f"{name}{DEVIATION}" for name in names] if uncertainty else []
    added = (*names, *deviations, *([LABEL] if labels else []))
    if clash := [name for name in added if name in columns]:
        fix = "leave out labels" if clash == [LABEL] else "give another name by column"
        raise UserError(f"data has a column {clash[0]} already; rename or remove it, or {fix}")
    return added


def _check_members(scorer: Scorer | ScorerFiles) -> None:
    several = scorer.ensemble is not None if isinstance(scorer, ScorerFiles) else hasattr(scorer.model, "members")
    if not several:
        raise UserError("uncertainty is the deviation of an ensemble's members, and this is a single reward model")


def open_scorer(
    model: str | RewardModel | RewardEnsemble | Scorer,
    output: str | int | None = None,
    chat_template: str | None = None,
) -> Scorer | ScorerFiles:
    """A model as a `Scorer`; of one given by name what its files tell.

    Raises:
        UserError: Nothing can be scored with it.
    """
    if isinstance(model, str):
        if not is_ensemble(model):
            check_source(model)
        return read_scorer(model, output=output, chat_template=chat_template)
    return model if isinstance(model, Scorer) else Scorer("the model", model, Output(0, "reward", 1))


def _score_rows(
    scorer: Scorer,
    rows: Dataset,
    records: Dataset,
    reader: Reader,
    parts: Parts,
    progress: Progress,
    uncertainty: bool = False,
) -> list[list[float]]:
    """The scores of each row's responses, block by block, and behind them their deviations if `uncertainty`.

    The same rows are always scored together, so that a job that was killed in between ends with the same bits.
    """
    counts, lengths = records["count"][:], records["length"][:]
    model, tokenizer = scorer.model, scorer.tokenizer
    key: dict[str, Any] = {"weights": weights_digest(model), "versions": versions(), "device": str(model.device)}
    if reader.encoder is None:
        key |= {"vocabulary": digest(tokenizer.get_vocab()), "template": tokenizer.chat_template, "as": scorer.template}
        key |= {"length": tokenizer.model_max_length, "output": str(scorer.output)}
    if reader.encoder is not None:
        for trunk in {id(member.model): member.model for member in members_of(model)}.values():
            sides_of = ((*row["prompt_ids"], *row["response_ids"]) for row in cast(Rows, records))
            check_token_ids(unwrapped(trunk), tokenizer, map(chain.from_iterable, sides_of), "data")
    score = scorer.score if reader.encoder is None else model.score_ids
    if uncertainty:
        key["uncertainty"], score = "std", _with_deviations(score)
    if reader.encoder is None or _shares_prompts(records):
        _settle(score, rows, records, reader)
    scores: list[list[float]] = []
    done = 0
    with progress.task("scoring", sum(counts)) as advance:
        for block in _blocks(counts):
            items = _items(rows, records, reader, block)

            def compute(block: range = block, items: Items = items, done: int = done) -> list[list[float]]:
                by_length = sorted(range(len(block)), key=lambda n: lengths[block[n]])
                return _score_block(score, items, by_length, lambda count: advance(done + count, ""))

            scores += parts.get({**key, "items": items}, compute)
            done += sum(map(len, items))
            advance(done, "")
    if wrong := [number for number, row in enumerate(scores) if not all(map(math.isfinite, row))]:
        raise UserError(
            f"data: {len(wrong)} rows get a score that is no finite number (row {wrong[0]}): the model overflows in "
            "its dtype; load it in float32"
        )
    return scores


def _with_deviations(score: Callable[..., Any]) -> Callable[..., tuple[list[float], ...]]:
    def both(*given: Any) -> tuple[list[float], ...]:
        scores, measured = score(*given, return_uncertainty=["std"])
        return scores, measured["std"]

    return both


Items = list[list[list[Any]]]
"""By row and response: token ids of prompt and response, or for a model that writes texts itself what it takes."""


def _items(rows: Dataset, records: Dataset, reader: Reader, block: range) -> Items:
    if reader.encoder is not None:
        ids = records[block.start : block.stop]
        return [
            list(map(list, zip(*row, strict=True))) for row in zip(ids["prompt_ids"], ids["response_ids"], strict=True)
        ]
    given = cast(Rows, rows.with_format(None).select(block))
    return [
        [[*sample, {name: row[name] for name in NESTED if name in row}] for sample in reader.samples(row)]
        for row in given
    ]


def _score_block(
    score: Callable[..., Any], items: Items, order: Sequence[int], advance: Callable[[int], None]
) -> list[list[float]]:
    """Scores of a block, rows in this order a chunk at a time; of several kinds of numbers one behind the other."""
    scores: list[list[float]] = [[] for _ in items]
    done = 0
    for chunk in _chunks(order, [len(row) for row in items]):
        given = [list(values) for values in zip(*(item for number in chunk for item in items[number]), strict=True)]
        found = score(*given)
        columns = [iter(column) for column in (found if isinstance(found, tuple) else (found,))]
        for number in chunk:
            scores[number] = [float(next(column)) for column in columns for _ in items[number]]
        done += len(given[0])
        advance(done)
    return scores


def _blocks(counts: Sequence[int]) -> Iterator[range]:
    """Ranges of rows with BLOCK responses, or a little more."""
    start = held = 0
    for number, count in enumerate(counts, start=1):
        held += count
        if held >= BLOCK or number == len(counts):
            yield range(start, number)
            start, held = number, 0


def _chunks(order: Sequence[int], counts: Sequence[int]) -> Iterator[list[int]]:
    """Rows in this order, with CHUNK responses or a little more at a time."""
    chunk: list[int] = []
    for number in order:
        chunk.append(number)
        if sum(counts[n] for n in chunk) >= CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _shares_prompts(records: Dataset) -> bool:
    """Whether any two responses have one prompt."""
    seen: set[int] = set()
    for row in cast(Rows, records.select_columns("prompt_ids")):
        for prompt in row["prompt_ids"]:
            if (key := hash(tuple(prompt))) in seen:
                return True
            seen.add(key)
    return False


def _settle(score: Callable[..., Any], rows: Dataset, records: Dataset, reader: Reader) -> None:
    """Have the model settle how it lays rows out, on the longest rows and the shortest, before any block.

    It would do so at the first block, and again at a longer one: a resumed job would then decide on other rows.
    """
    order = sorted(range(len(records)), key=records["length"][:].__getitem__)
    extremes = [*order[-2:], *([] if reader.encoder else order[:1])]  # whether padding is harmless needs both
    found = [_items(rows, records, reader, range(n, n + 1))[0] for n in extremes]
    chosen = [max(row, key=lambda item: len(item[1])) for row in found]
    # Twice each, since responses that share a prompt are laid out differently.
    score(*(list(values) for values in zip(*(item for item in chosen for _ in range(2)), strict=True)))


def _settings(scorer: Scorer, limits: Limits, first: Sample) -> dict[str, Any]:
    """How the texts were read."""
    return {
        "template": scorer.template_of([first.prompt]),
        "output": str(scorer.output),
        "max_length": limits.max_length if scorer.reads_end else scorer.positions,
    }


def _figures(layout: Layout, records: Dataset, scores: Sequence[Sequence[float]]) -> dict[str, Any]:
    values = np.asarray([score for row in scores for score in row])
    figures: dict[str, Any] = {
        "columns": list(layout.columns),
        "rows": len(scores),
        "responses": len(values),
        **{name: sum(records[name]) for name in ("prompts_cut", "responses_cut", "unfinished")},
        **{name: float(getattr(values, name)()) for name in ("mean", "std", "min", "max")},
    }
    if layout.columns == PAIR:
        signs = [np.sign(better - worse) for better, worse in scores]
        figures["agreement"] = float(np.mean(signs) + 1) / 2  # a tie counts as half
    return figures
