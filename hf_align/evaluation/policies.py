"""Evaluation of policies: responses to the same prompts, sampled from each, scored by a judge."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from hf_align.acceleration.registry import Setting, accelerated
from hf_align.collators import encode_prompts
from hf_align.collators.checks import read_rows, refuse_own_columns
from hf_align.collators.prompts import OWN_COLUMNS
from hf_align.collators.rows import Side, read_prompt
from hf_align.collators.tools import NESTED
from hf_align.errors import UserError
from hf_align.evaluation.rows import domains_of
from hf_align.evaluation.scorers import judge_scores, to_gpu
from hf_align.models.decoders import positions_of
from hf_align.models.kinds import check_head, check_is_policy
from hf_align.models.loading import load_policy
from hf_align.models.quantized import Quantization
from hf_align.models.sources import check_source, load_config, load_tokenizer
from hf_align.progress import Progress, Silent
from hf_align.rewards.reward import check_functions
from hf_align.rollouts import Engine, sample_responses, warn_of_open_turns
from hf_align.statistics import bootstrap_interval, groups


@dataclass(frozen=True)
class Continuation:
    """One sampled response.

    Attributes:
        text: The response without special tokens.
        tokens: Its length in tokens, EOS not counted.
        ended: Whether the policy ended it with EOS (otherwise the length limit cut it).

    Example:
        >>> from hf_align import load_policy
        >>> from hf_align.evaluation import sample_continuations
        >>> from hf_align.models.sources import load_tokenizer
        >>> name = "HuggingFaceTB/SmolLM2-135M-Instruct"
        >>> policy, tokenizer = load_policy(name), load_tokenizer(name)
        >>> continuations = sample_continuations(policy, tokenizer, ["The film was"], max_new_tokens=8)
        >>> continuations[0].tokens <= 8
        True
    """

    text: str
    tokens: int
    ended: bool


def measure_policies(
    policies: Sequence[str],
    rows: Dataset,
    judge: Any = None,
    *,
    max_new_tokens: int = 64,
    batch_size: int = 32,
    quantization: Quantization = None,
    resamples: int = 2000,
    seed: int = 0,
    engine: str | Engine = "static",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Sample policies on the same prompts and compare a judge's scores of their responses.

    Args:
        policies: Folders or Hub ids, each once; the others are compared with the first.
        rows: Column `prompt`; optionally `domain`, `tools` and `chat_template_kwargs` for the chat template, and what
            the judge reads.
        judge: See `judge_scores`.
        max_new_tokens: Limit of a response's length.
        batch_size: Prompts generated together.
        quantization: Quantisation of all models.
        resamples: Bootstrap resamples of the intervals.
        seed: Seed of sampling and bootstrap.
        engine: As in `sample_responses`.
        progress: Receiver of progress. Default: none.

    Returns:
        As "report" the result of `compare_policies`, and as "samples" each prompt with every policy's text and score.

    Raises:
        UserError: A model, a row or the judge can't be used; checks that need no weights come first.
    """
    for name, value in (("max_new_tokens", max_new_tokens), ("batch_size", batch_size)):
        if value < 1:
            raise UserError(f"{name} is {value}; give a number from 1")
    if len(set(policies)) < len(policies):
        raise UserError("model names the same policy twice; name each once")
    refuse_own_columns(rows.column_names, OWN_COLUMNS, "data")
    domains = domains_of(rows)
    plain = rows.with_format(None)
    prompts = read_rows(plain, read_prompt, "data")
    options = [dict(row) for row in plain.select_columns([name for name in NESTED if name in rows.column_names])]
    options = options or [{}] * len(prompts)
    for name in policies:
        check_source(name)
        check_is_policy(name, "model")
    if isinstance(judge, str):
        check_source(judge)
        try:
            check_head(judge)
        except UserError as error:
            raise UserError(f"judge: {error}") from None
    elif judge is not None:
        check_functions(judge, [name for name in rows.column_names if name != "prompt"], ("finished",))
    for name in policies:
        check_room(name, prompts, options, max_new_tokens)
    samples: dict[str, list[Continuation]] = {}
    for name in policies:
        model = to_gpu(load_policy(name, quantization=quantization), quantization)
        with (progress or Silent()).task(f"sampling {Path(name).name}", len(rows)) as advance:
            samples[name] = sample_continuations(
                model,
                load_tokenizer(name),
                prompts,
                rows=options,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                seed=seed,
                engine=engine,
                progress=lambda done, advance=advance: advance(done, ""),
            )
    texts = {name: [sample.text for sample in written] for name, written in samples.items()}
    ended = {name: [sample.ended for sample in written] for name, written in samples.items()}
    columns = {name: plain[name][:] for name in rows.column_names if name != "prompt"}
    scores = judge_scores(judge, prompts, texts, ended, columns, quantization)
    return {
        "report": compare_policies(samples, scores, domains, resamples=resamples, seed=seed),
        "samples": [
            {"prompt": prompt, **{name: {"text": texts[name][row], "score": scores[name][row]} for name in policies}}
            for row, prompt in enumerate(prompts)
        ],
    }


def check_room(name: str, prompts: list[Side], rows: list[dict[str, Any]], max_new_tokens: int) -> None:
    """Refuse prompts without a chat template in a policy, and responses beyond its positions."""
    tokenizer = load_tokenizer(name)
    if not tokenizer.chat_template and any(isinstance(prompt, list) for prompt in prompts):
        raise UserError(f"data has messages as prompts, and the tokenizer of {name} has no chat template for them")
    positions = positions_of(load_config(name))
    longest = max(map(len, encode_prompts(tokenizer, prompts, "data", rows)))
    takes = f"{name} has {positions} positions and the longest prompt takes {longest}"
    if positions is not None and longest >= positions:
        raise UserError(f"data: {takes}, which leaves no room for a response; shorten or drop such prompts")
    if positions is not None and longest + max_new_tokens > positions:
        raise UserError(f"max_new_tokens is {max_new_tokens}; {takes}, so give at most {positions - longest}")


def sample_continuations(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Side],
    *,
    rows: Sequence[Mapping[str, Any]] | None = None,
    max_new_tokens: int = 32,
    batch_size: int = 32,
    seed: int = 0,
    engine: str | Engine = "static",
    progress: Callable[[int], None] | None = None,
) -> list[Continuation]:
    """Sample one response per prompt at temperature 1 from the whole vocabulary (no top-k, no top-p).

    Batches hold prompts of similar length, and each batch has its own seed: two policies that get the same prompts
    draw every token from the same random number, which makes their paired difference less noisy.

    Args:
        model: A decoder language model or a PeftModel.
        tokenizer: Its tokenizer.
        prompts: `[N]` texts or chat messages.
        rows: `[N]`, with `tools` and `chat_template_kwargs` for the chat template. Default: none has any.
        max_new_tokens: Limit of a response's length.
        batch_size: Prompts generated together.
        seed: Seed of the sampling.
        engine: As in `sample_responses`: "static", "continuous", or a custom `Engine`.
        progress: Called with the number of prompts finished after every batch.

    Returns:
        `[N]` responses in the order of the prompts.
    """
    encoded = encode_prompts(tokenizer, prompts, rows=rows)
    if any(isinstance(prompt, list) for prompt in prompts):
        warn_of_open_turns(model, tokenizer)
    order = sorted(range(len(encoded)), key=lambda row: len(encoded[row]))
    results: dict[int, Continuation] = {}
    with accelerated(model, Setting.of(model, "sample")):  # once for all batches
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            responses = sample_responses(
                model,
                tokenizer,
                [encoded[row] for row in batch],
                max_new_tokens=max_new_tokens,
                generator_seed=seed + start,
                engine=engine,
            )
            for row, response in zip(batch, responses, strict=True):
                # The length limit can cut a character that takes several tokens; its first bytes decode to U+FFFD.
                text = response.text.rstrip("\N{REPLACEMENT CHARACTER}").strip()
                results[row] = Continuation(text, len(response.token_ids) - response.finished, response.finished)
            if progress is not None:
                progress(len(results))
    return [results[row] for row in range(len(prompts))]


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Share of distinct n-grams among all n-grams of all texts (Li et al., 2016); lower case, split at spaces.

    Returns:
        1 when no n-gram repeats, near 0 when the texts are all alike, NaN when no text has n words.
    """
    grams = [
        tuple(words[start : start + n])
        for words in (text.lower().split() for text in texts)
        for start in range(len(words) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else float("nan")


def compare_policies(
    samples: Mapping[str, Sequence[Continuation]],
    scores: Mapping[str, Sequence[float]],
    domains: Sequence[str],
    *,
    rewards: Mapping[str, Sequence[float]] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Any]:
    """Summarise the policies' responses to the same prompts, per domain and overall.

    Args:
        samples: `[N]` responses by policy name. The other policies are compared with the first.
        scores: The judge's `[N]` scores of these responses by policy name.
        domains: `[N]` domain of every prompt.
        rewards: A reward model's `[N]` scores by policy name, if there is one besides the judge.
        resamples: Bootstrap resamples of the intervals.
        seed: Seed of the bootstrap.

    Returns:
        `{"all" | domain: {"prompts", "policies": {name: {"score", "score_interval", "distinct_2", "mean_tokens",
        "ended", and, after the first, "gain" with "gain_interval"}}}}`. `gain` is the mean difference to the first
        policy on the same prompt. With `rewards` also "reward", "reward_sd" and, after the first, "reward_gain" with
        "reward_gain_interval" and "reward_gain_sds": the gain in standard deviations of the first policy's rewards.

    Raises:
        UserError: The policies have different numbers of rows.
    """
    for name in samples:
        if not len(samples[name]) == len(scores[name]) == len(domains):
            raise UserError(f"policy {name!r} does not have one response and one score per prompt ({len(domains)})")
    first = np.asarray(next(iter(scores.values())), dtype=float)
    report: dict[str, Any] = {}
    for label, rows in {"all": np.arange(len(domains)), **groups(domains)}.items():
        policies: dict[str, dict[str, Any]] = {}
        for position, name in enumerate(samples):
            policy_scores = np.asarray(scores[name], dtype=float)[rows]
            written = [samples[name][row] for row in rows]
            entry: dict[str, Any] = {
                "score": float(policy_scores.mean()),
                "score_interval": bootstrap_interval(np.mean, policy_scores, resamples=resamples, seed=seed),
                "distinct_2": distinct_n([sample.text for sample in written]),
                "mean_tokens": float(np.mean([sample.tokens for sample in written])),
                "ended": float(np.mean([sample.ended for sample in written])),
            }
            if position:
                entry |= _gain("gain", policy_scores - first[rows], resamples, seed)
            if rewards is not None:
                base, got = (np.asarray(rewards[key], dtype=float)[rows] for key in (next(iter(samples)), name))
                entry |= {"reward": float(got.mean()), "reward_sd": float(got.std())}
                if position:
                    entry |= _gain("reward_gain", got - base, resamples, seed)
                    entry["reward_gain_sds"] = entry["reward_gain"] / (float(base.std()) or float("nan"))
            policies[name] = entry
        report[label] = {"prompts": len(rows), "policies": policies}
    return report


def _gain(name: str, differences: np.ndarray, resamples: int, seed: int) -> dict[str, Any]:
    """The mean of paired differences and its interval."""
    return {
        name: float(differences.mean()),
        f"{name}_interval": bootstrap_interval(np.mean, differences, resamples=resamples, seed=seed),
    }
