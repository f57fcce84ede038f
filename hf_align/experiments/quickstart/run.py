"""A whole quickstart: its stages, then metrics.json and report.html."""

import time
from collections.abc import Sequence
from typing import Any

import torch

from hf_align.experiments.quickstart.duration import forecast
from hf_align.experiments.quickstart.job import Job, Stage
from hf_align.experiments.quickstart.stages import STAGES
from hf_align.experiments.quickstart.summary import write_summary


def run_quickstart(job: Job, command: str = "") -> dict[str, Any]:
    """Run the stages that are not done yet, then write metrics.json and report.html.

    Args:
        job: From `open_job`.
        command: Command line that repeats the run, for the report.

    Returns:
        Content of metrics.json.
    """
    left = [stage.name for stage in STAGES if job.workspace.result(stage.name) is None]
    if job.profile_name == "full" and left and not torch.cuda.is_available():
        job.progress.line(forecast(left))
    return write_summary(job, run_stages(job, STAGES), command)


def run_stages(job: Job, stages: Sequence[Stage]) -> dict[str, dict[str, Any]]:
    """Run the stages in order, skipping those that are done; return each stage's record by name."""
    results: dict[str, dict[str, Any]] = {}
    for number, stage in enumerate(stages, start=1):
        heading = f"[{number}/{len(stages)}] {stage.title}"
        if (done := job.workspace.result(stage.name)) is not None:
            job.progress.line(f"{heading}: already done")
            results[stage.name] = done
            continue
        job.progress.line(heading)
        start = time.perf_counter()
        record = stage.run(job)
        record["seconds"] = round(time.perf_counter() - start, 1)
        job.workspace.finish(stage.name, record)
        results[stage.name] = record
        job.progress.line(f"   done in {record['seconds']:.0f} s")
    return results
