"""Best-of-N data: a policy's samples to each prompt, scored by a reward model or a judge, of which the best are kept.

The best sample of each prompt is what rejection sampling trains on (Touvron et al., 2023, Llama 2, section 3.2.3); the
best and the worst are a preference pair.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, cast, get_args

import numpy as np
from datasets import Dataset, concatenate_datasets

from hf_align.collators import encode_prompts
from hf_align.collators.checks import as_dataset, read_rows
from hf_align.collators.rows import Side
from hf_align.collators.scorable import OF_RESPONSES, read_any_prompt
from hf_align.collators.tools import NESTED, to_dataset
from hf_align.collators.truncation import Limits
from hf_align.data.layouts.recognition import is_read, prompt_rows
from hf_align.data.parts import Parts
from hf_align.errors import UserError
from hf_align.evaluation.scored import Scored, open_scorer, score_dataset
from hf_align.models.kinds import check_is_policy
from hf_align.models.loading import load_policy
from hf_align.models.placement import to_gpu
from hf_align.models.quantized import Quantization
from hf_align.models.reward import RewardModel
from hf_align.models.scorer import Scorer
from hf_align.models.sources import check_source, load_tokenizer
from hf_align.progress import Progress, Silent
from hf_align.rewards import Judge, rank_responses
from hf_align.rewards.judges import TIE
from hf_align.rollouts.sampler import Sample, Sampler, check_room

logger = logging.getLogger(__name__)

Keep = Literal["best", "pairs", "all"]
JUDGED = 32
"""Pairs that a judge compares at a time, rounded to whole prompts: what a kill loses."""


@dataclass(frozen=True)
class Sampling:
    """How responses are sampled.

    Attributes:
        n: Samples per prompt, at least 2.
        max_new_tokens: Length limit of a sample, in tokens.
        temperature: Divides the logits.
        top_p: Sample from the most likely tokens with this total probability.
        batch_size: Samples generated at a time, rounded to whole prompts.
        seed: Seed of the sampling.

    Example:
        >>> from hf_align.evaluation import Sampling
        >>> Sampling(n=8, max_new_tokens=64)
        Sampling(n=8, max_new_tokens=64, temperature=1.0, top_p=1.0, batch_size=64, seed=0)
    """

    n: int
    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    batch_size: int = 64
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n < 2:
            raise UserError(f"best_of is {self.n}; give at least 2 samples per prompt")
        for name in ("max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; give a number from 1")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"temperature is {self.temperature}; give a number above 0, or all samples are the same")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p is {self.top_p}; give a probability above 0, up to 1")


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
    rows = as_dataset(dataset, "data", ())
    if not is_read(rows, read_any_prompt, rows.column_names):
        rows = as_dataset(prompt_rows(rows, "data"), "data", ())
    plain = cast(Sequence[Mapping[str, Any]], rows.with_format(None))
    prompts = read_rows(plain, read_any_prompt, "data")
    options = [{name: row[name] for name in NESTED if row.get(name) is not None} for row in plain]
    check_source(policy)
    check_is_policy(policy, "policy", ask_hub=True)
    if not isinstance(model, Judge):
        if max_length is not None:
            Limits(max_length)
        scorer = open_scorer(model, output, chat_template)
        if scorer.reads_end and scorer.template == "rows":
            encode_prompts(scorer.tokenizer, prompts, "data", options)
    elif given := [name for name, value in _of_rewards(max_length, output, chat_template) if value is not None]:
        raise UserError(f"{given[0]} is for a reward model; a judge of pairs takes none")
    check_room(policy, prompts, options, sampling.max_new_tokens)
    progress, parts = progress or Silent(), parts or Parts()
    samples = _sample(policy, prompts, options, sampling, quantization, parts, progress)
    usable = [[s for s in each if s.text.strip() and (s.finished or not finished_only)] for each in samples]
    asked = [number for number, each in enumerate(usable) if each]
    if not asked:
        raise UserError(f"data: no prompt has a sample that isn't empty{' or cut' * finished_only}; {_LONGER}")
    if isinstance(model, Judge):
        figures: dict[str, Any] = {"judge": model.name}
        usable, scores = _rank(model, prompts, usable, sampling.n, parts, progress)
    else:
        scored = score_dataset(
            model,
            to_dataset([_candidates(prompts[number], usable[number], options[number]) for number in asked]),
            max_length=max_length,
            output=output,
            chat_template=chat_template,
            quantization=quantization,
            parts=parts,
            progress=progress,
        )
        figures = {name: scored.figures[name] for name in ("template", "output", "max_length")}
        scores = dict(zip(asked, scored.rows["scores"][:], strict=True))
    new = {number: row for number in scores if (row := _KEEPERS[keep](usable[number], scores[number])) is not None}
    if not new:
        raise UserError(
            "data: every prompt's samples have one score, so there is no pair; sample more or other prompts"
        )
    given = rows.select(list(new))
    given = given.remove_columns([name for name in given.column_names if name in OF_RESPONSES])
    if "prompt" not in given.column_names:
        new = {number: {"prompt": prompts[number], **row} for number, row in new.items()}
    kept = to_dataset(list(new.values()))
    if given.column_names:
        kept = concatenate_datasets([given, kept], axis=1)
    figures = _figures(samples, usable, scores, new, keep, sampling) | figures
    return Scored(kept, tuple(next(iter(new.values()))), figures)


_LONGER = "raise max_new_tokens or look at what the policy writes"


def _sample(
    policy: str,
    prompts: Sequence[Side],
    options: Sequence[Mapping[str, Any]],
    sampling: Sampling,
    quantization: Quantization,
    parts: Parts,
    progress: Progress,
) -> list[list[Sample]]:
    """Samples to each prompt, in blocks of prompts of similar length with seeds of their own."""
    sampler = Sampler(to_gpu(load_policy(policy, quantization=quantization), quantization), load_tokenizer(policy))
    encoded, model_key = sampler.encode(prompts, options), sampler.identity()
    order = sorted(range(len(encoded)), key=lambda number: len(encoded[number]))
    size = max(1, sampling.batch_size // sampling.n)
    samples: dict[int, list[Sample]] = {}
    with progress.task("sampling", len(order)) as advance, sampler.accelerated():
        for start in range(0, len(order), size):
            block = order[start : start + size]
            ids = [encoded[number] for number in block]

            def compute(ids: list[list[int]] = ids, start: int = start) -> list[list[Sample]]:
                return sampler.sample(
                    ids,
                    num_samples=sampling.n,
                    max_new_tokens=sampling.max_new_tokens,
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    seed=_seed_of(sampling.seed, start),
                )

            written = parts.get({**model_key, "sampling": asdict(sampling), "start": start, "ids": ids}, compute)
            for number, each in zip(block, written, strict=True):
                samples[number] = [Sample(*sample) for sample in each]
            advance(len(samples), "")
    return [samples[number] for number in range(len(prompts))]


def _of_rewards(*values: Any) -> list[tuple[str, Any]]:
    return list(zip(("max_length", "output", "chat_template"), values, strict=True))


def _candidates(prompt: Side, samples: Sequence[Sample], options: Mapping[str, Any]) -> dict[str, Any]:
    """A row of responses to score."""
    texts, finished = [sample.text for sample in samples], [sample.finished for sample in samples]
    return {"prompt": prompt, "responses": texts, "finished": finished, **options}


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


def _seed_of(seed: int, start: int) -> int:
    """The seed of the block that starts there: those of neighbouring seeds don't overlap."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{start}".encode()).digest()[:6], "big")


def _best(samples: Sequence[Sample], scores: Sequence[float]) -> dict[str, Any]:
    best = max(range(len(scores)), key=lambda n: scores[n])
    return {
        "completion": samples[best].text,
        "score": scores[best],
        "scores": list(scores),
        "finished": samples[best].finished,
    }


def _pair(samples: Sequence[Sample], scores: Sequence[float]) -> dict[str, Any] | None:
    """The best and the worst, None if no score is lower than the best of another text."""
    best = max(range(len(scores)), key=lambda n: scores[n])
    lower = [n for n in range(len(scores)) if scores[n] < scores[best] and samples[n].text != samples[best].text]
    if not lower:
        return None
    worst = min(lower, key=lambda n: scores[n])
    return {
        "chosen": samples[best].text,
        "rejected": samples[worst].text,
        "margin": scores[best] - scores[worst],
        "score_chosen": scores[best],
        "score_rejected": scores[worst],
        "finished": [samples[best].finished, samples[worst].finished],
    }


def _all(samples: Sequence[Sample], scores: Sequence[float]) -> dict[str, Any] | None:
    """Every text once, since rankings hold no two alike; None if fewer than two are left."""
    first = {sample.text: number for number, sample in reversed(list(enumerate(samples)))}
    kept = sorted(first.values())
    if len(kept) < 2:
        return None
    return {
        "responses": [samples[n].text for n in kept],
        "scores": [scores[n] for n in kept],
        "finished": [samples[n].finished for n in kept],
    }


_KEEPERS = {"best": _best, "pairs": _pair, "all": _all}


def _figures(
    samples: Sequence[Sequence[Sample]],
    usable: Sequence[Sequence[Sample]],
    scores: Mapping[int, Sequence[float]],
    new: Mapping[int, Mapping[str, Any]],
    keep: Keep,
    sampling: Sampling,
) -> dict[str, Any]:
    flat = [sample for each in samples for sample in each]
    values = [score for each in scores.values() for score in each]
    kept_scores = [max(scores[number]) for number in new]
    return {
        "keep": keep,
        **asdict(sampling),
        "prompts": len(samples),
        "rows": len(new),
        "samples": len(flat),
        "empty": sum(not sample.text.strip() for sample in flat),
        "cut": sum(not sample.finished for sample in flat),
        "without_usable_sample": sum(not each for each in usable),
        "alike": len(scores) - len(new),
        "undecided": sum(len(set(each)) == 1 and len(each) > 1 for each in scores.values()),
        "mean": sum(values) / len(values),
        "mean_best": sum(kept_scores) / len(kept_scores),
        "kept_cut": sum(not np.all(row["finished"]) for row in new.values()),
    }
