"""Train on a language with a known optimum and plot each method's distance from it: `python -m docs.make_closed_form`.

Writes docs/results/closed-form.json, the figure and the table in docs/closed-form.md. Some minutes on a CPU.
"""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import torch

from hf_align.version import versions
from tests.trainers.closed_form import Course, run_direct, run_ppo

DOCS = Path(__file__).parent
RESULTS, FIGURE, PAGE = (
    DOCS / "results" / "closed-form.json",
    DOCS / "images" / "closed-form.svg",
    DOCS / "closed-form.md",
)
SEEDS = (0, 1, 2)
EVERY = 5
GROUP = {"baseline": "group", "num_samples": 8}
REINFORCE = {"policy_loss": "reinforce", "num_ppo_epochs": None}
METHODS: dict[str, tuple[Any, dict[str, Any], str]] = {
    "PPO, k1 in the reward": (run_ppo, {}, "#1f77b4"),
    "PPO, k1 of the response at its end": (run_ppo, {"kl_in": "terminal"}, "#aec7e8"),
    "PPO, k2 in the loss": (run_ppo, {"kl_in": "loss", "kl_estimator": "k2", "max_steps": 300}, "#17becf"),
    "PPO, full KL in the loss": (run_ppo, {"kl_in": "loss", "kl_estimator": "full", "max_steps": 300}, "#9467bd"),
    "RLOO": (run_ppo, {**GROUP, **REINFORCE}, "#ff7f0e"),
    "RLOO, clipped": (run_ppo, GROUP, "#ffbb78"),
    "GRPO, k1 in the reward": (run_ppo, {**GROUP, "group_scaling": True}, "#8c564b"),
    "GRPO, k2 in the loss": (run_ppo, {**GROUP, "group_scaling": True, "kl_in": "loss", "max_steps": 300}, "#e377c2"),
    "REINFORCE, no baseline": (run_ppo, {"baseline": "none", **REINFORCE, "max_steps": 300}, "#7f7f7f"),
    "DPO": (run_direct, {"loss_type": "sigmoid"}, "#d62728"),
    "IPO, per token": (run_direct, {"loss_type": "ipo"}, "#2ca02c"),
    "IPO, sums": (run_direct, {"loss_type": "ipo", "ipo_reduction": "sum"}, "#bcbd22"),
}
ELSEWHERE = ("GRPO, k2 in the loss",)
"""Methods that end somewhere else."""
Results = dict[str, Any]


def measure() -> Results:
    """Train all runs; return their distances and probabilities, and the versions used."""
    runs = []
    for method, (run, changes, _) in METHODS.items():
        for seed in SEEDS:
            with tempfile.TemporaryDirectory() as out:
                course: Course = run(Path(out), seed, every=EVERY, **changes)
            print(f"{method}, seed {seed}: {course.distances[0]:.3f} -> {course.distances[-1]:.4f}")
            runs.append(
                {
                    "method": method,
                    "seed": seed,
                    "steps": course.steps,
                    "distances": [round(distance, 5) for distance in course.distances],
                    "optimum": [float(f"{p:.5g}") for p in course.optimum.tolist()],
                    "end": [float(f"{p:.5g}") for p in course.end.tolist()],
                }
            )
    return {"versions": versions(("torch", "transformers", "datasets", "accelerate")), "runs": runs}


def table(results: Results) -> str:
    """The distances before and after as a Markdown table."""
    lines = ["| | seed | before | after | steps |", "| --- | --- | --- | --- | --- |"]
    for run in results["runs"]:
        first, last = run["distances"][0], run["distances"][-1]
        lines.append(f"| {run['method']} | {run['seed']} | {first:.2f} | **{last:.3f}** | {run['steps'][-1]} |")
    libraries = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    return "\n".join(lines) + f"\n\nMade with {libraries}.\n"


def page(results: Results) -> str:
    """The page with an updated table."""
    before = PAGE.read_text(encoding="utf-8")
    return re.sub(r"(<!-- table[^>]*-->\n).*(<!-- end -->)", lambda m: m[1] + table(results) + m[2], before, flags=re.S)


def draw(results: Results) -> None:
    """Draw the figure."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "closed-form"  # the same file for the same numbers
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 5), layout="constrained")
    for run in results["runs"]:
        color, first = METHODS[run["method"]][2], run["seed"] == SEEDS[0]
        label = run["method"] if first else None
        left.plot(run["steps"], run["distances"], color=color, label=label, linewidth=1.2, alpha=1 if first else 0.45)
        if first:
            right.plot(run["optimum"], run["end"], "o", color=color, markersize=4, alpha=0.7)
    left.axhline(0.05, color="grey", linestyle="--", linewidth=0.8)
    left.set(xlabel="step", ylabel="total variation from the optimum", yscale="log")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    right.plot([1e-6, 1], [1e-6, 1], color="grey", linewidth=0.8)
    right.set(xscale="log", yscale="log", xlim=(1e-6, 1), ylim=(1e-6, 1))
    right.set(xlabel="probability at the optimum", ylabel="probability after training (seed 0)")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


if __name__ == "__main__":
    torch.set_num_threads(1)  # tiny matrices
    results = measure()
    RESULTS.write_text(json.dumps(results) + "\n", encoding="utf-8")
    draw(results)
    PAGE.write_text(page(results), encoding="utf-8")
