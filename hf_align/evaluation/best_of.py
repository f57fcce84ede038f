"""Best-of-N data: a policy's samples to each prompt, scored by a reward model or a judge, of which the best are kept.

The best sample of each prompt is what rejection sampling trains on (Touvron et al., 2023, Llama 2, section 3.2.3); the
best and the worst are a preference pair.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast, get_args

from datasets import Dataset, concatenate_datasets

from hf_align.collators import encode_prompts
from hf_align.collators.checks import as_dataset, read_rows
from hf_align.collators.rows import Side
from hf_align.collators.scorable import OF_RESPONSES, read_any_prompt
from hf_align.collators.tools import template_columns, to_dataset
from hf_align.collators.truncation import Limits
from hf_align.data.layouts.recognition import is_read, prompt_rows
from hf_align.data.parts import Parts
from hf_align.errors import UserError
from hf_align.evaluation.best_of_kept import KEEPERS, Keep, figures_of
from hf_align.evaluation.best_of_samples import Sampling, sample_prompts
from hf_align.evaluation.scored import Scored, open_scorer, score_dataset
from hf_align.models.kinds import check_is_policy
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel
from hf_align.models.scorer import Scorer
from hf_align.models.sources import check_source
from hf_align.progress import Progress, Silent
from hf_align.rewards import Judge, rank_responses
from hf_align.rewards.judges import TIE
from hf_align.rollouts.sampler import Sample, check_room

logger = logging.getLogger(__name__)

JUDGED = 32
"""Pairs that a judge compares at a time, rounded to whole prompts: what a kill loses."""


def sample_best(
    policy: str,
    model: str | RewardModel | Scorer | Judge,
    dataset: Dataset | list[dict[str, Any]],
    sampling: Sampling,
    *,
    keep: Keep = "best",
    finished_only: bool = False,
    max_length: int | None = None,
    output: str | int | None = None,
    chat_template: str | None = None,
    quantization: Quantization = None,
    parts: Parts | None = None,
    progress: Progress | None = None,
) -> Scored:
    """Sample several responses to each prompt, score them, and keep some.

    A sample that the length limit cut is scored without an end, as PPO scores it. Empty samples are left out. A judge
    of pairs compares all pairs of a prompt's samples, n(n - 1)/2; a score is then the mean preference over the others,
    from 0 to 1 (`rank_responses`). Samples on which it has no opinion at all are left out.

    Args:
        policy: Folder or Hub id of the policy.
        model: The reward model, or its folder or Hub id, loaded after the policy has sampled everything; or a judge of
            pairs (`hf_align.rewards.Judge`), which takes none of `max_length`, `output` and `chat_template`. What a
            judge with a method `identity` said is kept in `parts`.
        dataset: Rows with a `prompt`, or with another layout whose prompts are read: `messages` (a last answer is left
            out), or `chosen` and `rejected` with a common beginning. `tools` and `chat_template_kwargs` go to the chat
            templates.
        sampling: How to sample.
        keep: "best": the sample with the highest score, as `completion` with `score`, `scores` of all, and `finished`.
            "pairs": the best as `chosen` and the worst as `rejected`, `margin` their difference, with both scores and
            `finished`; prompts whose samples all have one score are left out. "all": `responses` (each text once),
            `scores`, `finished`.
        finished_only: Leave out samples that the length limit cut.
        max_length: As in `score_dataset`.
        output: As in `load_scorer`.
        chat_template: As in `load_scorer`.
        quantization: Quantisation of both models.
        parts: Keeps finished blocks of prompts, for jobs that go on after they were killed. Default: none are kept.
        progress: Receiver of progress. Default: none.

    Returns:
        The rows of the prompts that are kept: their columns, except those about earlier responses, and the new ones.

    Raises:
        UserError: A model or a row can't be used (checked before any weight is loaded), or no prompt is kept.

    Example:
        >>> from hf_align import RewardModel
        >>> from hf_align.evaluation import Sampling, sample_best
        >>> name = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> model = RewardModel.from_backbone(name)
        >>> rows = [{"prompt": "The film was"}, {"prompt": "I ordered this and"}]
        >>> best = sample_best(name, model, rows, Sampling(n=4, max_new_tokens=8))
        >>> best.rows.column_names
        ['prompt', 'completion', 'score', 'scores', 'finished']
        >>> all(row["score"] == max(row["scores"]) for row in best.rows)
        True
    """
    if keep not in get_args(Keep):
        raise UserError(f"keep is {keep!r}; use one of {', '.join(get_args(Keep))}")
    asked = _Asked.of(dataset)
    how = {"max_length": max_length, "output": output, "chat_template": chat_template}
    check_source(policy)
    check_is_policy(policy, "policy", ask_hub=True)
    if not isinstance(model, Judge):
        if max_length is not None:
            Limits(max_length)
        scorer = open_scorer(model, output, chat_template)
        if scorer.reads_end and scorer.template == "rows":
            encode_prompts(scorer.tokenizer, asked.prompts, "data", asked.options)
    elif given := [name for name, value in how.items() if value is not None]:
        raise UserError(f"{given[0]} is for a reward model; a judge of pairs takes none")
    check_room(policy, asked.prompts, asked.options, sampling.max_new_tokens)
    progress, parts = progress or Silent(), parts or Parts()
    samples = sample_prompts(policy, asked.prompts, asked.options, sampling, quantization, parts, progress)
    usable = [[s for s in each if s.text.strip() and (s.finished or not finished_only)] for each in samples]
    if not any(usable):
        raise UserError(f"data: no prompt has a sample that isn't empty{' or cut' * finished_only}; {_LONGER}")
    if isinstance(model, Judge):
        figures: dict[str, Any] = {"judge": model.name}
        usable, scores = _rank(model, asked.prompts, usable, sampling.n, parts, progress)
    else:
        scores, figures = _score(model, asked, usable, **how, quantization=quantization, parts=parts, progress=progress)
    new = {number: row for number in scores if (row := KEEPERS[keep](usable[number], scores[number])) is not None}
    if not new:
        raise UserError(
            "data: every prompt's samples have one score, so there is no pair; sample more or other prompts"
        )
    kept, added = asked.with_columns(new)
    return Scored(kept, added, figures_of(samples, usable, scores, new, keep, sampling) | figures)


@dataclass(frozen=True)
class _Asked:
    """The prompts that are sampled for.

    Attributes:
        rows: Their rows.
        prompts: The prompts themselves.
        options: For each the columns that its chat template gets.
    """

    rows: Dataset
    prompts: list[Side]
    options: list[dict[str, Any]]

    @classmethod
    def of(cls, dataset: Dataset | list[dict[str, Any]]) -> _Asked:
        """Read them.

        Raises:
            UserError: The layout is unknown, or a row has no prompt.
        """
        rows = as_dataset(dataset, "data", ())
        if not is_read(rows, read_any_prompt, rows.column_names):
            rows = as_dataset(prompt_rows(rows, "data"), "data", ())
        plain = cast(Sequence[Mapping[str, Any]], rows.with_format(None))
        return cls(rows, read_rows(plain, read_any_prompt, "data"), list(map(template_columns, plain)))

    def with_columns(self, new: Mapping[int, Mapping[str, Any]]) -> tuple[Dataset, tuple[str, ...]]:
        """Rows with new columns in place of those about earlier responses, and the new columns' names.

        Args:
            new: The new columns by the prompt's number; prompts without them are left out.
        """
        given = self.rows.select(list(new))
        given = given.remove_columns([name for name in given.column_names if name in OF_RESPONSES])
        if "prompt" not in given.column_names:
            new = {number: {"prompt": self.prompts[number], **row} for number, row in new.items()}
        kept = to_dataset([dict(row) for row in new.values()])
        if given.column_names:
            kept = concatenate_datasets([given, kept], axis=1)
        return kept, tuple(next(iter(new.values())))


_LONGER = "raise max_new_tokens or look at what the policy writes"


def _score(
    model: str | RewardModel | Scorer, asked: _Asked, samples: Sequence[Sequence[Sample]], **options: Any
) -> tuple[dict[int, list[float]], dict[str, Any]]:
    """Samples' scores by the prompt's number, and how they were scored; `options` as in `score_dataset`."""
    numbers = [number for number, each in enumerate(samples) if each]
    rows = [
        {
            "prompt": asked.prompts[number],
            "responses": [sample.text for sample in samples[number]],
            "finished": [sample.finished for sample in samples[number]],
            **asked.options[number],
        }
        for number in numbers
    ]
    scored = score_dataset(model, to_dataset(rows), **options)
    figures = {name: scored.figures[name] for name in ("template", "output", "max_length")}
    return dict(zip(numbers, scored.rows["scores"][:], strict=True)), figures


def _rank(
    judge: Judge,
    prompts: Sequence[Side],
    samples: Sequence[Sequence[Sample]],
    n: int,
    parts: Parts,
    progress: Progress,
) -> tuple[list[list[Sample]], dict[int, list[float]]]:
    """Samples with an opinion, and, by the prompt's number, their mean preference over the prompt's others.

    A sample alone has 1/2, the mean of all.
    """
    with_opinion: list[list[Sample]] = [[] for _ in samples]
    ranked: dict[int, list[float]] = {}
    identity = cast(Any, judge).identity() if hasattr(judge, "identity") else None
    numbers = [number for number, each in enumerate(samples) if each]
    size = max(1, JUDGED // (n * (n - 1) // 2))
    with progress.task(f"judging: {judge.name}", len(numbers)) as advance:
        for start in range(0, len(numbers), size):
            block = numbers[start : start + size]
            asked = [prompts[number] for number in block]
            texts = [[sample.text for sample in samples[number]] for number in block]
            rank = partial(rank_responses, judge, asked, texts)
            scores = rank() if identity is None else parts.get([identity, asked, texts], rank)
            for number, each in zip(block, scores, strict=True):
                given = [TIE] if len(each) == 1 else each
                pairs = [(one, score) for one, score in zip(samples[number], given, strict=True) if score is not None]
                if pairs:
                    with_opinion[number], ranked[number] = [one for one, _ in pairs], [score for _, score in pairs]
            advance(start + len(block), "")
    if not ranked:
        raise UserError(f"judge {judge.name!r} has no opinion on any sample")
    return with_opinion, ranked
