r"""The first choice of `hf-align select` beside what trained best, in cells of data size, noise, budget and memory.

    hf-align benchmark --config recipes/benchmark-embedded.yaml --workers 11
    hf-align benchmark --config recipes/benchmark-cells.yaml --workers 4
    python -m benchmarks.selector_cells --results out/benchmark-embedded out/benchmark-cells \
        --model hf-align-quickstart/base

A cell is a data set of a grid with the resources that the choice is made under. The selector sees what its command
would: the cell's pairs, the model, memory, no reward model; and, as a user who has checked some labels would tell, the
share of wrong ones: of e expected from people's disagreement and f flipped, e (1 - f) + (1 - e) f. Its rules are those
that are committed. Regret is the win rate over the base of the best algorithm that was trained and fits the cell's
memory, minus that of the choice, in points; a choice that the grid doesn't train is replaced by the next one that it
does, and so marked.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hf_align.evaluation.grid import BASE, RESULT
from hf_align.experiments.benchmark.data import TrainingData
from hf_align.experiments.benchmark.grid import DATA
from hf_align.experiments.benchmark.planned import GRID
from hf_align.files import write_json
from hf_align.planning.device import read_size
from hf_align.planning.selection.estimates import estimator
from hf_align.planning.selection.resources import Resources
from hf_align.planning.selection.rules import DEFAULT, read_rules
from hf_align.planning.selection.select import WEIGHTS, features_of, recommend

NEAR = 2.0
"""Points of win rate within which a choice counts as the best."""


@dataclass(frozen=True)
class Cell:
    """A case that a choice is made in.

    Attributes:
        dataset: The grid's data set.
        varies: What distinguishes it.
        memory: Memory of the device.
    """

    dataset: str
    varies: str
    memory: str = "80GB"

    @property
    def name(self) -> str:
        """Its name: that of its data set, with a tight memory."""
        return self.dataset if self.memory == "80GB" else f"{self.dataset}, {self.memory}"

    def grid_in(self, results: Sequence[Path]) -> Path:
        """The output folder of the grid that has its data set."""
        return next(folder for folder in results if (folder / self.dataset).is_dir())


CELLS = (
    Cell("clean", "size"),
    Cell("pairs-256", "size"),
    Cell("pairs-64", "size"),
    Cell("flip-10", "noise"),
    Cell("flipped", "noise"),
    Cell("flip-40", "noise"),
    Cell("rows-96", "budget"),
    Cell("flip-25-of-64", "size and noise"),
    Cell("clean", "memory", "2GB"),
    Cell("flipped", "memory", "1.3GB"),
)


def choose(cell: Cell, out: Path, model: str, flip: float) -> Any:
    """The selector's recommendation for a cell."""
    pairs = TrainingData.load(out / DATA / cell.dataset).pairs
    assert pairs is not None
    resources = Resources(cell.memory)
    features = features_of(pairs, model, resources, (), None)
    wrong = features.noise or 0.0
    features = replace(features, noise=wrong * (1 - flip) + (1 - wrong) * flip)
    return recommend(features, read_rules(DEFAULT), WEIGHTS, estimator(model, resources.device))


def measured(cell: Cell, out: Path) -> dict[str, dict[str, Any]]:
    """By label of the algorithms trained on the cell's data: "win" and "by_seed" in percent, "memory" in bytes."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((out / cell.dataset).glob(f"*/*/{RESULT}")):
        result = json.loads(path.read_text(encoding="utf-8"))
        base = json.loads((out / BASE / str(result["seed"]) / RESULT).read_text(encoding="utf-8"))
        gains = np.subtract(result["figures"]["judge"], base["figures"]["judge"])
        entry = found.setdefault(result["label"], {"by_seed": [], "memory": 0})
        entry["by_seed"].append(100 * float(np.mean((np.sign(gains) + 1) / 2)))
        entry["memory"] = max(entry["memory"], result["peak_memory_bytes"] or 0)
    return {label: {"win": float(np.mean(entry["by_seed"])), **entry} for label, entry in found.items()}


def compare(cell: Cell, out: Path, model: str) -> dict[str, Any]:
    """A cell's choice, what was best, and the regret."""
    flip = json.loads((out / GRID).read_text(encoding="utf-8"))["datasets"][cell.dataset]["flip"]
    choice, runs = choose(cell, out, model, flip), measured(cell, out)
    limit = read_size(cell.memory)
    fitting = {label: entry for label, entry in runs.items() if entry["memory"] <= limit}
    trained = next((name for name in choice.scores if name in fitting), None)
    best = max(fitting, key=lambda label: fitting[label]["win"], default=None)
    return {
        "cell": cell.name,
        "varies": cell.varies,
        "noise": choice.features.noise,
        "pairs": choice.features.pairs,
        "choice": choice.algorithm,
        "confidence": choice.confidence,
        "scores": choice.scores,
        "compared": trained,
        "best": best,
        "regret": None if trained is None or best is None else fitting[best]["win"] - fitting[trained]["win"],
        "measured": runs,
    }


def table(cells: Sequence[dict[str, Any]]) -> str:
    """The cells as markdown."""
    lines = ["| cell | choice | win rate | best | win rate | regret, points |", "| --- | --- | --- | --- | --- | --- |"]
    for each in cells:
        chosen = each["choice"] + (f" (not trained; {each['compared']})" if each["choice"] != each["compared"] else "")
        rates = [each["measured"].get(each[name], {}).get("win") for name in ("compared", "best")]
        shown = ["" if rate is None else f"{rate:.1f}" for rate in (rates[0], rates[1], each["regret"])]
        lines.append(f"| {each['cell']} | {chosen} | {shown[0]} | {each['best']} | {shown[1]} | {shown[2]} |")
    near = sum(each["regret"] is not None and each["regret"] <= NEAR for each in cells)
    return "\n".join([*lines, "", f"within {NEAR:g} points of the best in {near} of {len(cells)} cells"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, and write the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.selector_cells", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--results", type=Path, required=True, nargs="+", help="output folders of both recipes")
    parser.add_argument("--model", required=True, help="folder of the base")
    parser.add_argument("--save", type=Path, help="also write the figures as JSON")
    options = parser.parse_args(arguments)
    cells = [compare(cell, cell.grid_in(options.results), options.model) for cell in CELLS]
    print(table(cells))
    if options.save is not None:
        write_json(options.save, cells)


if __name__ == "__main__":
    main()
