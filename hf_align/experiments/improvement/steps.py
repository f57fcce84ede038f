"""The steps of a round before its evaluation: sample, judge, make pairs, train."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import set_seed

from hf_align.collators.rows import as_response
from hf_align.collators.tools import to_dataset
from hf_align.experiments.improvement.job import POLICY, Job
from hf_align.experiments.improvement.pairs import (
    Judged,
    Pair,
    RoundPrompts,
    anchors_of,
    different,
    make_pairs,
    prompts_of_round,
    training_rows,
)
from hf_align.experiments.improvement.sampling import Settings, open_sampler, sample_blocks
from hf_align.experiments.run import loading_errors
from hf_align.files import write_json
from hf_align.rewards.judges import rank_responses
from hf_align.rollouts.sampler import seed_for
from hf_align.trainers.callbacks import train_explained
from hf_align.trainers.checkpoints import last_checkpoint
from hf_align.trainers.dpo import DPOConfig, DPOTrainer

SAMPLES, JUDGED, PAIRS, TRAINED = "samples", "judged", "pairs", "trained"
CHECKPOINTS, HISTORY = "checkpoints", "history.json"


def sample_round(job: Job, number: int) -> dict[str, Any]:
    """The last round's policy responds to this round's prompts.

    Returns:
        "fresh" and "anchored" rows of prompts, "texts" and "finished" of the responses to both, in this order.
    """
    config = job.config
    chosen = prompts_of_round(
        number,
        len(job.prompts),
        config.prompts_per_round or len(job.prompts),
        list(anchors(job, number)),
        config.anchor_share,
        job.seed,
    )
    asked = job.prompts.only([*chosen.fresh, *chosen.anchored])
    settings = Settings(
        config.num_samples,
        config.max_new_tokens,
        config.sampling_batch_size,
        seed_for(job.seed, f"round {number}"),
        config.rollout_engine,
        config.temperature,
        config.top_p,
    )
    sampler = open_sampler(job.policy(number - 1), job.quantization)
    written = sample_blocks(
        sampler, asked.contents, asked.options, settings, job.parts(number), job.progress, f"samples, round {number}"
    )
    return {
        **chosen._asdict(),
        "texts": [[each.text for each in row] for row in written],
        "finished": [[each.finished for each in row] for row in written],
    }


def anchors(job: Job, number: int) -> dict[int, str]:
    """What the first round rejected, by row of the prompt; nothing for the first round itself."""
    return {} if number == 1 else anchors_of(pairs_of(job, 1))


def judge_round(job: Job, number: int) -> dict[str, Any]:
    """The training's judge scores the samples of each prompt, an anchor among them.

    Returns:
        "judged" (fields of `Judged`), "empty" and "cut" samples, and the judge's counts.
    """
    samples = job.stored(number, SAMPLES, lambda: sample_round(job, number))
    chosen, rejected = RoundPrompts(samples["fresh"], samples["anchored"]), anchors(job, number)
    rows, texts = [*chosen.fresh, *chosen.anchored], []
    for place, (row, written, finished) in enumerate(zip(rows, samples["texts"], samples["finished"], strict=True)):
        usable = [text for text, ended in zip(written, finished, strict=True) if ended or not job.config.finished_only]
        texts.append(different(usable, rejected[row] if place >= len(chosen.fresh) else None))
    judge = job.stored_judge(job.judge, number - 1, number, f"judging round {number}")
    several = [place for place, group in enumerate(texts) if len(group) > 1]
    prompts = {place: job.prompts.contents[rows[place]] for place in several}
    ranked = rank_responses(
        judge,
        [prompts[place] for place in several],
        [[as_response(text, prompts[place]) for text in texts[place]] for place in several],
    )
    scores = dict(zip(several, ranked, strict=True))
    flat = [text for group in samples["texts"] for text in group]
    return {
        "judged": [
            {
                "row": row,
                "texts": texts[place],
                "scores": scores.get(place, [None] * len(texts[place])),
                "anchored": place >= len(chosen.fresh),
            }
            for place, row in enumerate(rows)
        ],
        "samples": len(flat),
        "empty": sum(not text.strip() for text in flat),
        "cut": sum(not finished for group in samples["finished"] for finished in group),
        **judge.figures(),
    }


def pair_round(job: Job, number: int) -> dict[str, Any]:
    """The round's "pairs" (fields of `Pair`) and "counts" (see `make_pairs`)."""
    judged = judged_of(job, number)["judged"]
    pairs, counts = make_pairs([Judged(**each) for each in judged], job.config.pairs)
    return {"pairs": [pair._asdict() for pair in pairs], "counts": counts}


def judged_of(job: Job, number: int) -> dict[str, Any]:
    """The stored scores of a round."""
    return job.stored(number, JUDGED, lambda: judge_round(job, number))


def paired(job: Job, number: int) -> dict[str, Any]:
    """The stored pairs of a round, with their counts."""
    return job.stored(number, PAIRS, lambda: pair_round(job, number))


def pairs_of(job: Job, number: int) -> list[Pair]:
    """The stored pairs of a round."""
    return [Pair(**each) for each in paired(job, number)["pairs"]]


def train_round(job: Job, number: int) -> dict[str, Any]:
    """DPO or IPO on the round's pairs, from the last round's policy; saves the policy and the trainer's history.

    Returns:
        "steps", "rows", and the last logged "loss" and "rewards/accuracies".
    """
    folder = job.round(number)
    checkpoints = folder / CHECKPOINTS
    checkpoint = last_checkpoint(checkpoints)
    if checkpoint is None:
        shutil.rmtree(checkpoints, ignore_errors=True)  # of a run that ended before its first checkpoint
    rows = to_dataset(training_rows(pairs_of(job, number), job.prompts.contents, job.prompts.options))
    args = training_config(job.training, checkpoints)
    set_seed(args.seed)
    with loading_errors(job.policy(number - 1)):
        trainer = DPOTrainer(
            model=job.policy(number - 1),
            ref_model=job.model if job.config.reference == "start" and number > 1 else None,
            args=args,
            train_dataset=rows,
            peft_config=job.lora if number == 1 else None,
            quantization_config=job.quantization,
        )
    train_explained(trainer, job.progress, f"training, round {number}", checkpoint=checkpoint)
    trainer.save_model(str(folder / POLICY))
    history = trainer.state.log_history
    write_json(folder / HISTORY, history)
    figures: dict[str, Any] = {"steps": trainer.state.global_step, "rows": len(rows)}
    for name in ("loss", "rewards/accuracies"):
        figures[name] = next((entry[name] for entry in reversed(history) if name in entry), None)
    del trainer
    gc.collect()  # a trainer is part of reference cycles, and the next step loads models
    return figures


def training_config(values: Mapping[str, Any], folder: Path) -> DPOConfig:
    """The trainer's config of one round, which writes below its folder."""
    return DPOConfig(**{"disable_tqdm": True, "report_to": "none", **values, "output_dir": str(folder)})


def trained(job: Job, number: int) -> dict[str, Any]:
    """The stored record of a round's training; its checkpoints are no longer needed."""
    record = job.stored(number, TRAINED, lambda: train_round(job, number))
    shutil.rmtree(job.round(number) / CHECKPOINTS, ignore_errors=True)
    return record
