"""What a quickstart leaves behind besides models: metrics.json, report.html and two tables in the terminal."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from hf_align.cli.console import Screen
from hf_align.experiments.quickstart.run import Job
from hf_align.experiments.quickstart.stages import POLICIES, read_histories, read_samples
from hf_align.files import write_json
from hf_align.report import render_report, write_text

METRICS, REPORT = "metrics.json", "report.html"
PACKAGES = ("hf-align", "torch", "transformers", "peft", "trl", "accelerate", "bitsandbytes", "datasets")
TRAINED = ("reward", "dpo", "ipo", "ppo")


def collect(results: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any], command: str) -> dict[str, Any]:
    """Gathers every number of the run, with what is needed to repeat it.

    Args:
        results: Every stage's record.
        settings: Profile, quantisation, seed and all numbers of the profile.
        command: The command line.
    """
    return {
        "command": command,
        "settings": settings,
        "model": results["base"]["model"],
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {"system": platform.platform(), "device": _device()},
        "seconds": {name: record["seconds"] for name, record in results.items()},
        "resumed": [name for name in TRAINED if results[name]["resumed"]],
        "rows": {name: results[name]["rows"] for name in TRAINED},
        "episodes": results["ppo"]["episodes"],
        "ppo_course": results["ppo"]["course"],
        "held_out": {name: results[name]["held_out"] for name in TRAINED},
        "reward_model": results["evaluation/reward"]["report"],
        "policies": results["evaluation/policies"]["report"],
    }


def write(job: Job, metrics: Mapping[str, Any]) -> None:
    """Writes metrics.json and report.html into the output folder."""
    root = job.workspace.root
    write_json(root / METRICS, metrics)
    write_text(root / REPORT, render_report(metrics, read_histories(job), read_samples(job)))


def show(screen: Screen, metrics: Mapping[str, Any]) -> None:
    """Prints the two tables that answer: does the reward model agree with people, did the policies change."""
    people = metrics["reward_model"]
    scorers = list(next(iter(people.values()))["scorers"])
    screen.line("")
    screen.table(
        "Agreement with people on held-out sentences: r (pair accuracy)",
        ["", *scorers],
        [[label, *(_agreement(part["scorers"][name]) for name in scorers)] for label, part in people.items()],
    )
    screen.line("")
    policies = metrics["policies"]["all"]["policies"]
    screen.table(
        f"VADER on {metrics['policies']['all']['prompts']} sampled continuations, 95% intervals",
        ["", "score", "gain over base", "reward", "distinct-2", "held-out pairs right"],
        [[name, *_policy_cells(policies[name], metrics["held_out"].get(name))] for name in POLICIES],
    )
    screen.line("")


def _agreement(scorer: Mapping[str, float]) -> str:
    return f"{scorer['r']:.2f} ({scorer['pair_accuracy']:.2f})"


def _policy_cells(entry: Mapping[str, Any], held_out: Mapping[str, float] | None) -> list[str]:
    low, high = entry.get("gain_interval", (0.0, 0.0))
    return [
        f"{entry['score']:+.2f}",
        f"{entry['gain']:+.2f} [{low:+.2f}, {high:+.2f}]" if "gain" in entry else "",
        f"{entry['reward']:+.2f}",
        f"{entry['distinct_2']:.2f}",
        f"{held_out['rewards/accuracies']:.2f}" if held_out and "rewards/accuracies" in held_out else "",
    ]


def _device() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a source tree that was never installed
            found[name] = "not installed"
    return found
