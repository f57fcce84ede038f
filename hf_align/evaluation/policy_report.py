"""Report on policies: whether their responses are better than a reference's, and what that cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hf_align.collators.checks import as_dataset
from hf_align.data.layouts.recognition import prompt_rows
from hf_align.errors import UserError
from hf_align.evaluation.divergence import measure_kl
from hf_align.evaluation.diversity import measure_diversity
from hf_align.evaluation.human_text import COUNT, HumanText, measure_lost_ability, read_human_text
from hf_align.evaluation.policies import beside_each_other, compare_policies
from hf_align.evaluation.policy_inputs import Asked, check_judge, check_policies, check_sizes, read_asked
from hf_align.evaluation.policy_judges import judge_all, judges_by_name
from hf_align.evaluation.policy_remarks import remarks_on_judges, remarks_on_policies
from hf_align.evaluation.preferred import best_and_worst, measure_domains, with_gain
from hf_align.evaluation.report import PolicyReport
from hf_align.evaluation.win_rate import measure_length_controlled, measure_win_rate
from hf_align.evaluation.writing import Writing, Written, write_all
from hf_align.models.quantized import Quantization
from hf_align.progress import Progress, Silent
from hf_align.rewards import Judge
from hf_align.rollouts import Engine
from hf_align.statistics import Resampling
from hf_align.version import versions

ONE_POLICY = "there is one policy and nothing to compare it with; give a second one, or a reference"


def policy_report(
    policies: str | Sequence[str],
    prompts: Any,
    *,
    judge: Any,
    reference: str | None = None,
    human_text: Sequence[str] | None = None,
    human_texts: int = COUNT,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    quantization: Quantization = None,
    resamples: int = 2000,
    seed: int = 0,
    engine: str | Engine = "static",
    progress: Progress | None = None,
) -> PolicyReport:
    """Sample policies on the same prompts and measure how their responses differ from a reference's.

    Each policy is loaded once, and one is in memory at a time.

    Args:
        policies: Folders or Hub ids of any policies: whole models, adapters, GGUF folders.
        prompts: Texts or conversations, or a data set with a column `prompt`; optionally `domain` or `subset`, `tools`
            and `chat_template_kwargs` for the chat template, and what the judge reads.
        judge: What judges the responses, independent of what the policies were trained on: "vader", what `as_reward`
            takes (a reward model or its folder or Hub id, a function, an object with `score`, a weighted list), or a
            judge of pairs (`hf_align.rewards.Judge`), which compares each response with the reference's: its score is
            then the probability that it is better. A mapping of names to several: the first decides all sections, the
            others' win rates stand beside.
        reference: The policy that the others are compared with, one of them or a further one. Default: the first.
        human_text: Texts by people, held out from training, for lost ability. Default: the test sentences of the
            embedded ratings.
        human_texts: Most of them, drawn at random; 0 to leave lost ability out.
        max_new_tokens: Limit of a response's length.
        batch_size: Prompts generated together.
        quantization: Quantisation of all models.
        resamples: Bootstrap resamples of the intervals.
        seed: Seed of sampling and all draws.
        engine: As in `sample_responses`.
        progress: Receiver of progress. Default: none.

    Raises:
        UserError: A policy, a prompt, a text or the judge can't be used; what needs no weights is checked first.

    Example:
        >>> from hf_align.evaluation import policy_report
        >>> name = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> cheerful = lambda prompts, responses: [float(text.count("!")) for text in responses]
        >>> prompts = ["The film was", "I ordered this and"]
        >>> report = policy_report(name, prompts, judge=cheerful, human_texts=2, max_new_tokens=4, resamples=10)
        >>> report.metrics["lost_ability"]["policies"][name]["nll"] > 0
        True
    """
    names, reference = _names(policies, reference)
    check_sizes({"max_new_tokens": max_new_tokens, "batch_size": batch_size, "resamples": resamples})
    check_sizes({"human_texts": human_texts}, 0)
    asked = read_asked(_rows(prompts))
    judges = judges_by_name(judge)
    for label, each in judges.items():
        check_judge(each, list(asked.columns))
        if isinstance(each, Judge) and len(names) == 1:
            raise UserError(f"judge {label!r} compares responses, and {ONE_POLICY}")
    check_policies(names, asked, max_new_tokens)
    text = read_human_text(human_text, human_texts, seed).encode(names)
    progress = progress or Silent()
    writing = Writing(max_new_tokens, batch_size, seed, engine, quantization)
    written = write_all(names, reference, asked, text, writing, progress)
    scores, parts, pairs = judge_all(judges, asked, written, reference, quantization, progress)
    first = next(iter(judges))
    samples = {name: its.samples for name, its in written.items()}
    metrics = _measure(asked, written, scores, text, reference, resamples, seed)
    facts = {
        "policies": names,
        "labels": _labels(names),
        "reference": reference,
        "judge": first,
        "judges": list(judges),
        "pairs": pairs,
        "prompts": len(asked),
        "units": len(np.unique(asked.units)),
        "max_new_tokens": max_new_tokens,
        "resamples": resamples,
        "seed": seed,
        "human_text": text.source,
        "quantization": None if quantization is None else str(quantization),
        "missing": _missing(metrics, human_texts),
        "processor": written[names[0]].processor,
        "versions": versions(),
    }
    remarks = [
        *remarks_on_judges(facts["labels"], parts),
        *remarks_on_policies(asked, written, scores, metrics, facts),
    ]
    texts = {name: [sample.text for sample in each] for name, each in samples.items()}
    return PolicyReport(
        metrics,
        facts,
        remarks,
        beside_each_other(asked.prompts, texts, scores[first]),
        scores,
        compare_policies(samples, scores[first], asked.domains, resamples=resamples, seed=seed),
    )


def _names(policies: str | Sequence[str], reference: str | None) -> tuple[list[str], str]:
    """All policies, the reference among them, and its name."""
    names = [policies] if isinstance(policies, str) else list(policies)
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError("policies needs the folder or Hub id of at least one policy, as text.")
    reference = names[0] if reference is None else reference
    return (names if reference in names else [reference, *names]), reference


def _labels(names: Sequence[str]) -> dict[str, str]:
    """What to call each: the last part of its name, or as many parts as tell it from the others."""
    parts = {name: Path(name).parts for name in names}
    for count in range(1, max(map(len, parts.values())) + 1):
        labels = {name: "/".join(each[-count:]) for name, each in parts.items()}
        if len(set(labels.values())) == len(names):
            return labels
    return {name: name for name in names}


def _rows(prompts: Any) -> Any:
    if isinstance(prompts, Sequence) and not isinstance(prompts, str):
        if not len(prompts):
            raise UserError("data has no prompts; give at least one.")
        if all(isinstance(prompt, str | list) for prompt in prompts):
            prompts = [{"prompt": prompt} for prompt in prompts]
    return as_dataset(prompt_rows(prompts, "data"), "data", ("prompt",))


def _measure(
    asked: Asked,
    written: Mapping[str, Written],
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    text: HumanText,
    reference: str,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """All sections, in the report's order."""
    unit, resampling = asked.units, Resampling(int(asked.units.max()) + 1, resamples=resamples, seed=seed)
    texts = {name: [sample.text for sample in its.samples] for name, its in written.items()}
    tokens = {name: [sample.tokens for sample in its.samples] for name, its in written.items()}
    others = {name: its for name, its in written.items() if name != reference}
    judged = next(iter(scores.values()))
    compared = _compare(asked, texts, scores, reference, resampling) if others else {}

    def before(name: str, values: Mapping[str, Any]) -> Any:
        return values[reference] if name in others else None

    return {
        "win_rate": compared.get("win_rate"),
        "length_controlled": compared.get("length_controlled"),
        "scores": {
            "policies": {
                name: with_gain("score", judged[name], before(name, judged), resampling, unit) for name in written
            }
        },
        "kl": {"policies": {name: _kl(its, resampling, unit) for name, its in others.items()}} if others else None,
        "diversity": {"policies": {name: measure_diversity(texts[name], resampling, unit) for name in written}},
        "length": {
            "policies": {
                name: with_gain("tokens", tokens[name], before(name, tokens), resampling, unit)
                | _ended(its, resampling, unit)
                for name, its in written.items()
            }
        },
        "lost_ability": measure_lost_ability(
            text, {name: its.human for name, its in written.items()}, reference, resamples=resamples, seed=seed
        ),
        "best_and_worst": compared.get("best_and_worst"),
        "domains": compared.get("domains"),
    }


def _compare(
    asked: Asked,
    texts: Mapping[str, Sequence[str]],
    scores: Mapping[str, Mapping[str, Sequence[float]]],
    reference: str,
    resampling: Resampling,
) -> dict[str, Any]:
    """The sections that compare judged responses with the reference's."""
    lengths = {name: [len(each) for each in of_policy] for name, of_policy in texts.items()}
    judged = next(iter(scores.values()))
    rates = {judge: measure_win_rate(each, reference, resampling, asked.units) for judge, each in scores.items()}
    controlled = {
        judge: measure_length_controlled(each, reference, lengths, resampling, asked.units)
        for judge, each in scores.items()
    }
    first, *others = scores
    return {
        **{
            key: {"policies": figures[first], "others": {judge: figures[judge] for judge in others}}
            for key, figures in (("win_rate", rates), ("length_controlled", controlled))
        },
        "best_and_worst": best_and_worst(asked.prompts, texts, judged, asked.domains, reference),
        "domains": measure_domains(judged, reference, asked.domains, resampling, asked.units),
    }


def _kl(its: Written, resampling: Resampling, unit: Any) -> dict[str, Any]:
    if its.reference_logps is None:
        return {"why": its.without_kl}
    return measure_kl(its.logps, its.reference_logps, resampling, unit)


def _ended(its: Written, resampling: Resampling, unit: Any) -> dict[str, Any]:
    ended = [float(sample.ended) for sample in its.samples]
    share, interval = resampling.share(ended, unit)
    characters = float(np.mean([len(sample.text) for sample in its.samples]))
    return {"characters": characters, "ended": share, "ended_interval": interval}


def _missing(metrics: Mapping[str, Any], human_texts: int) -> dict[str, str]:
    """Why sections are empty."""
    reasons = {
        "domains": "the rows have no column domain or subset with several values",
        "lost_ability": "it was left out" if not human_texts else "no text has two tokens",
    }
    one = metrics["win_rate"] is None
    return {
        name: ONE_POLICY if one and name not in reasons else reasons.get(name, ONE_POLICY)
        for name, figures in metrics.items()
        if figures is None
    }
