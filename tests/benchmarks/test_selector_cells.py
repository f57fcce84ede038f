"""The selector's choice beside what trained best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from benchmarks.selector_cells import CELLS, measured, table
from hf_align.files import write_json

RECIPES = Path(__file__).parents[2] / "recipes"


def test_cells_are_those_of_the_grids():
    grids = [yaml.safe_load((RECIPES / f"benchmark-{name}.yaml").read_text()) for name in ("embedded", "cells")]
    assert {each.dataset for each in CELLS} == {name for grid in grids for name in grid["datasets"]}
    assert len({each.name for each in CELLS}) == len(CELLS) == 10


def test_win_rates_are_over_the_base_with_the_same_seed(tmp_path: Path):
    def result(place: str, label: str, judge: list[float], memory: int = 0) -> None:
        seed = int(place[-1])
        content: dict[str, Any] = {
            "label": label,
            "seed": seed,
            "figures": {"judge": judge},
            "peak_memory_bytes": memory,
        }
        write_json(tmp_path / place / "result.json", content)

    for seed in (0, 1):
        result(f"base/{seed}", "base", [0.0, 0.0, float(seed), 0.0])
    result("flip-10/dpo/0", "dpo", [1.0, 0.0, 0.0, -1.0], memory=5)  # a win, two ties, a loss
    result("flip-10/dpo/1", "dpo", [1.0, 1.0, 0.0, 1.0], memory=7)  # three wins, a loss
    cell = next(each for each in CELLS if each.name == "flip-10")
    assert measured(cell, tmp_path) == {"dpo": {"win": 62.5, "by_seed": [50.0, 75.0], "memory": 7}}


def test_the_table_counts_choices_near_the_best():
    rates = {"dpo": {"win": 61.0}, "ipo": {"win": 62.5}, "sft": {"win": 50.0}}
    common = {"best": "ipo", "measured": rates}
    cells = [
        {"cell": "a", "choice": "dpo", "compared": "dpo", "regret": 1.5, **common},
        {"cell": "b", "choice": "grpo", "compared": "sft", "regret": 12.5, **common},
    ]
    lines = table(cells).splitlines()
    assert lines[2] == "| a | dpo | 61.0 | ipo | 62.5 | 1.5 |"
    assert lines[3] == "| b | grpo (not trained; sft) | 50.0 | ipo | 62.5 | 12.5 |"
    assert lines[-1] == "within 2 points of the best in 1 of 2 cells"
