"""Training of one run, by its algorithm's own trainer, from its last checkpoint: a policy and what it took."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from hf_align.algorithms import ALGORITHMS
from hf_align.errors import UserError
from hf_align.experiments.benchmark.config import Budget
from hf_align.experiments.benchmark.data import TrainingData, draw
from hf_align.experiments.benchmark.grid import DATA, HYBRID, REWARD
from hf_align.experiments.benchmark.jobs import Job
from hf_align.experiments.benchmark.length import Length
from hf_align.experiments.benchmark.limits import Elapsed, limits_of
from hf_align.experiments.benchmark.trainings import Training, prepared
from hf_align.experiments.recipe import Recipe
from hf_align.experiments.run import LORA_DEFAULTS, make_trainer, prepare
from hf_align.feedback.judges.named import check_judge
from hf_align.files import whole_folder, write_json
from hf_align.progress import Progress
from hf_align.rewards.named import read_reward
from hf_align.trainers.callbacks import train_explained
from hf_align.trainers.checkpoints import last_checkpoint
from hf_align.trainers.hybrid.config import HybridConfig, Stage
from hf_align.trainers.hybrid.state import LEFT_OUT, STATE
from hf_align.trainers.hybrid.trainer import HybridTrainer

TRAINING, POLICY, TRAINED = "training", "policy", "trained.json"
MODEL = "model"
"""Folder of a trained reward model in its run's."""
SPEED = ("runtime", "_per_second", "total_flos", "train_loss")


def reward_source(job: Job, out: Path) -> Any:
    """The reward of a run's data set: as named, or the folder of the one that was trained on its pairs."""
    return trained_reward(job.sources["reward"], job.settings["dataset"], out)


def trained_reward(given: Any, dataset: str, out: Path) -> Any:
    """A data set's reward as named, or the folder of the one that is trained where options are given.

    Raises:
        UserError: Its training hasn't finished.
    """
    if not isinstance(given, Mapping):
        return given
    if not (folder := out / dataset / REWARD / MODEL).exists():
        raise UserError(f"it needs {dataset}/{REWARD}, which failed")
    return str(folder)


def parts_of_job(job: Job) -> list[Training]:
    """The trainings of a run."""
    return [
        Training(ALGORITHMS[each["algorithm"]], each["options"], Length(**each["length"]), each["judge"], each["stage"])
        for each in job.settings["parts"]
    ]


def read_training_data(job: Job, out: Path) -> TrainingData:
    """The rows of a run's data set.

    Raises:
        UserError: They aren't those that the grid was checked with.
    """
    folder = out / DATA / job.settings["dataset"]
    data = TrainingData.load(folder)
    if data.digests != job.settings["rows"]:
        raise UserError(f"output_dir: the rows in {folder} were changed; delete that folder, and start again")
    return data


def train_policy(job: Job, out: Path, progress: Progress) -> dict[str, Any]:
    """Train the policy of a run, unless it is trained; return its record.

    Returns:
        "rows", "steps", "training_seconds", "stopped_by", "history", "kl_course" ([step, KL] where it is limited),
        "peak_memory_bytes", and "policy", its folder in the run's.

    Raises:
        UserError: Something can't be loaded or trained.
        KeyboardInterrupt: After Ctrl-C; a checkpoint is saved first.
    """
    path = job.folder(out) / TRAINED
    if not path.exists():
        train = _train_hybrid if job.kind == HYBRID else _train_one
        write_json(path, {**train(job, out, progress), "peak_memory_bytes": peak_memory()})
    return json.loads(path.read_text(encoding="utf-8"))


def _train_one(job: Job, out: Path, progress: Progress) -> dict[str, Any]:
    settings, [part] = job.settings, parts_of_job(job)
    budget, data = Budget(**settings["budget"]), read_training_data(job, out)
    rows = data.rows_for(part.algorithm.rows)
    assert rows is not None
    folder = job.folder(out) / TRAINING
    checkpoint = last_checkpoint(folder)
    if checkpoint is None:
        shutil.rmtree(folder, ignore_errors=True)  # of a run that ended before its first checkpoint
    shared = (settings["lora"], settings["quantization"], reward_source(job, out))
    run = prepared(part, part.recipe(job.sources["model"], folder, settings["seed"], *shared), rewards=True)
    trainer = make_trainer(run, {"train_dataset": draw(rows, part.length.drawn, settings["seed"])})
    probed = None if data.probed is None else data.probed["prompt"][:]
    elapsed, spends = limits_of(budget, trainer, probed, settings["max_new_tokens"])
    train_explained(trainer, progress, job.place, checkpoint=checkpoint)
    with whole_folder(folder / POLICY) as unfinished:
        trainer.save_model(str(unfinished), _internal_call=True)
    if spends is not None and spends.why_over():
        stopped = "kl"
    else:
        stopped = "seconds" if elapsed.why_over() else _last_limit(budget)
    steps = trainer.state.global_step
    return {
        "rows": part.length.rows_after(steps),
        "steps": steps,
        "training_seconds": elapsed.seconds,
        "stopped_by": stopped,
        "history": clean(trainer.state.log_history),
        "kl_course": [] if spends is None else spends.points,
        "policy": f"{TRAINING}/{POLICY}",
    }


def _last_limit(budget: Budget) -> str:
    """What ends a training that no other limit ended."""
    return "samples" if budget.samples is not None else "steps"


def clean(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a trainer logged, without its speed and what a stop changes."""
    kept = [
        {name: value for name, value in each.items() if not name.endswith(SPEED) and not name.startswith("time/")}
        for each in history
    ]
    return [each for each in kept if set(each) - {"step", "epoch"}]


def _train_hybrid(job: Job, out: Path, progress: Progress) -> dict[str, Any]:
    settings, parts = job.settings, parts_of_job(job)
    budget, folder = Budget(**settings["budget"]), job.folder(out) / TRAINING
    resumes, clocks = (folder / STATE).exists(), [Elapsed(part.seconds) for part in parts]
    reward = None if (source := reward_source(job, out)) is None else read_reward(source)
    data = read_training_data(job, out)
    hybrid = build_hybrid(job.sources["model"], settings, parts, data, reward, folder, clocks, progress)
    hybrid.train(resume_from_checkpoint=resumes or None)
    records = hybrid.state["stages"]
    steps = [each.get("steps", 0) for each in records]
    before, history, course = 0, list[dict[str, Any]](), list[list[float]]()
    histories = hybrid.histories()
    for record, count in zip(records, steps, strict=True):  # each stage counts its own steps
        number = record["number"]
        history += [
            {**each, "stage": number, "step": before + each["step"]} for each in clean(histories.get(number, []))
        ]
        course += [[before + step, kl] for step, kl in record.get("kl", [])]
        before += count
    spent = budget.kl is not None and bool(course) and course[-1][1] >= budget.kl
    by_kl, by_time = spent or records[-1]["status"] == LEFT_OUT, any(map(Elapsed.why_over, clocks))
    return {
        "rows": sum(part.length.rows_after(count) for part, count in zip(parts, steps, strict=False)),
        "steps": sum(steps),
        "training_seconds": None if resumes else sum(clock.seconds for clock in clocks),
        "stopped_by": "kl" if by_kl else "seconds" if by_time else _last_limit(budget),
        "history": history,
        "kl_course": course,
        "policy": TRAINING,
    }


def build_hybrid(
    model: str,
    settings: Mapping[str, Any],
    parts: list[Training],
    data: TrainingData,
    reward: Any,
    folder: Path,
    clocks: list[Elapsed],
    progress: Progress | None = None,
) -> HybridTrainer:
    """The trainer of a hybrid's run, which checks stages and rows and loads no policy.

    Raises:
        UserError: A stage, a hand-over or a row is unusable.
    """
    budget, stages, drawn = Budget(**settings["budget"]), list[Stage](), dict[str, int]()
    for part, clock in zip(parts, clocks, strict=True):
        kind, count = part.algorithm.rows, part.length.drawn
        source = "prompts" if kind == "prompts" else "pairs"
        rows = data.rows_for(kind)
        assert rows is not None
        drawn_rows = draw(rows, count, settings["seed"], drawn.get(source, 0))  # none sees another's pairs or prompts
        drawn[source] = drawn.get(source, 0) + (count or 0)
        held_out = {"eval_dataset": data.probed} if kind == "prompts" and budget.kl is not None else {}
        options = {"disable_tqdm": True, **part.options}
        judge = {} if part.judge is None else {"judge": check_judge(part.judge)}
        stages.append(
            Stage(
                part.algorithm.name,
                options,
                train_dataset=drawn_rows,
                callbacks=[clock],
                **held_out,
                **judge,
                **part.stage,
            )
        )
    lora = settings["lora"]
    config = HybridConfig(
        str(folder),
        seed=settings["seed"],
        keep="last",
        kl_budget=budget.kl,
        kl_every=budget.kl_every,
        kl_prompts=budget.kl_prompts,
        kl_max_new_tokens=settings["max_new_tokens"],
    )
    return HybridTrainer(
        model,
        stages,
        config,
        reward=reward,
        peft_config=None if lora is None else LoraConfig(**{**LORA_DEFAULTS, **lora}),
        quantization_config=settings["quantization"],
        progress=progress,
    )


def reward_recipe(model: str, options: Mapping[str, Any], folder: Path, grid_lora: Any, quantization: Any) -> Recipe:
    """The recipe of a reward model that a data set's runs are trained by: the grid's model and adapter, its options."""
    lora = options.get("lora", (grid_lora or True) if grid_lora is not None else None)
    values = {"report_to": "none", "save_total_limit": 1, **options}
    values |= {"model": model, "train_dataset": str(folder), "output_dir": str(folder), "lora": lora}
    values |= {"quantization": quantization}
    return Recipe({name: value for name, value in values.items() if value is not None})


def train_reward(job: Job, out: Path, progress: Progress) -> dict[str, Any]:
    """Train the reward model of a data set on its pairs.

    Returns:
        "steps", "training_seconds", "peak_memory_bytes" and "history".
    """
    settings, folder = job.settings, job.folder(out) / TRAINING
    rows = read_training_data(job, out).pairs
    assert rows is not None
    checkpoint = last_checkpoint(folder)
    if checkpoint is None:
        shutil.rmtree(folder, ignore_errors=True)
    shared = (settings["lora"], settings["quantization"])
    run = prepare(ALGORITHMS["reward"], reward_recipe(job.sources["model"], settings["reward"], folder, *shared))
    trainer = make_trainer(run, {"train_dataset": rows})
    elapsed = Elapsed()
    trainer.add_callback(elapsed)
    train_explained(trainer, progress, job.place, checkpoint=checkpoint)
    with whole_folder(job.folder(out) / MODEL) as unfinished:
        trainer.save_model(str(unfinished), _internal_call=True)
    record = {"steps": trainer.state.global_step, "training_seconds": elapsed.seconds}
    return {**record, "peak_memory_bytes": peak_memory(), "history": clean(trainer.state.log_history)}


def peak_memory() -> int | None:
    """Peak memory of this process so far in bytes: what torch allocated on the GPU, or else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)
