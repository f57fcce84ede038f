"""Summary of a quickstart: metrics.json and report.html."""

import json
import os
import platform
from collections.abc import Mapping
from typing import Any

import torch

from hf_align.experiments.quickstart.job import HISTORY, SAMPLES, TRAINED, Job
from hf_align.files import write_json, write_text
from hf_align.report.quickstart import render_report
from hf_align.version import versions

METRICS, REPORT = "metrics.json", "report.html"


def write_summary(job: Job, results: Mapping[str, Mapping[str, Any]], command: str) -> dict[str, Any]:
    """Write metrics.json and report.html into the output folder.

    Args:
        job: The run.
        results: Each stage's record.
        command: The command line.

    Returns:
        All numbers of the run, and everything needed to repeat it.
    """
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    metrics = {
        "command": command,
        "settings": job.settings,
        "model": results["base"]["model"],
        "versions": versions(),
        "machine": {"system": platform.platform(), "device": device},
        "seconds": {name: record["seconds"] for name, record in results.items()},
        "resumed": [name for name in TRAINED if results[name]["resumed"]],
        "rows": {name: results[name]["rows"] for name in TRAINED},
        "episodes": results["ppo"]["episodes"],
        "ppo_course": results["ppo"]["course"],
        "held_out": {name: results[name]["held_out"] for name in TRAINED},
        "reward_model": results["evaluation/reward"]["report"],
        "policies": results["evaluation/policies"]["report"],
    }
    write_json(job.folder(METRICS), metrics)
    histories = {stage: json.loads((job.folder(stage) / HISTORY).read_text(encoding="utf-8")) for stage in TRAINED}
    samples = json.loads((job.folder("evaluation/policies") / SAMPLES).read_text(encoding="utf-8"))
    write_text(job.folder(REPORT), render_report(metrics, histories, samples))
    return metrics
