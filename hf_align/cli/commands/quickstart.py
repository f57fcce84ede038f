"""`hf-align quickstart`: the run, with progress bars and two tables in the terminal."""

import argparse
import shlex
from collections.abc import Mapping
from typing import Any

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.errors import Interrupted
from hf_align.experiments import quickstart
from hf_align.progress import Progress


def run_quickstart(options: argparse.Namespace) -> None:
    """Run the quickstart and show its two tables.

    Args:
        options: Parsed arguments: `out`, `profile`, `quantization`, `seed`, `resume`, `overwrite`, `arguments`.

    Raises:
        UserError: An extra is missing, or the output folder can't be used this way.
        Interrupted: Ctrl-C.
    """
    screen = Screen()
    job = quickstart.open_job(
        options.out,
        options.profile,
        quantization=options.quantization,
        seed=options.seed,
        resume=options.resume,
        overwrite=options.overwrite,
        progress=screen,
    )
    screen.line(f"hf-align quickstart, profile {options.profile}, in {options.out}", "bold")
    try:
        with quiet_libraries(screen):  # imports torch, which takes seconds
            show(screen, quickstart.run_quickstart(job, f"hf-align {shlex.join(options.arguments)}"))
    except KeyboardInterrupt:
        words = ["hf-align", "quickstart", "--out", options.out, "--profile", options.profile]
        words += ["--quantization", options.quantization] if options.quantization else []
        words += ["--seed", str(options.seed)] if options.seed else []
        raise Interrupted(f"Resume with: {shlex.join([*words, '--resume'])}") from None
    screen.line(f"report: {job.folder('report.html')}", "bold")


def show(screen: Progress, metrics: Mapping[str, Any]) -> None:
    """Print two tables: agreement of the reward model with people, and change of the policies."""
    people = metrics["reward_model"]
    scorers = list(next(iter(people.values()))["scorers"])
    screen.line("")
    screen.table(
        "Agreement with people on held-out sentences: r (pair accuracy)",
        ["", *scorers],
        [
            [
                label,
                *(
                    f"{part['scorers'][name]['r']:.2f} ({part['scorers'][name]['pair_accuracy']:.2f})"
                    for name in scorers
                ),
            ]
            for label, part in people.items()
        ],
    )
    screen.line("")
    judged = metrics["policies"]["all"]
    screen.table(
        f"VADER on {judged['prompts']} sampled continuations, 95% intervals",
        ["", "score", "gain over base", "reward", "distinct-2", "held-out pairs right"],
        [
            [name, *_policy_cells(entry, metrics["held_out"].get(name, {}))]
            for name, entry in judged["policies"].items()
        ],
    )
    screen.line("")


def _policy_cells(entry: Mapping[str, Any], held_out: Mapping[str, float]) -> list[str]:
    low, high = entry.get("gain_interval", (0.0, 0.0))
    return [
        f"{entry['score']:+.2f}",
        f"{entry['gain']:+.2f} [{low:+.2f}, {high:+.2f}]" if "gain" in entry else "",
        f"{entry['reward']:+.2f}",
        f"{entry['distinct_2']:.2f}",
        f"{held_out['rewards/accuracies']:.2f}" if "rewards/accuracies" in held_out else "",
    ]
