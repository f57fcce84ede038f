from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.results import read_results, table_page, write_result


def result(**changes: Any) -> dict[str, Any]:
    ratio = {"median": 3.0, "least": 2.5, "most": 3.25, "pairs": [2.5, 3.0, 3.25]}
    return {
        "command": "python -m benchmarks dpo --peer trl",
        "machine": {"cpu": "A CPU", "cores": 2, "bf16": ["avx512_bf16"], "gpu": None},
        "versions": {"hf_align": "0.1", "trl": "1.16.0"},
        "ours": {"step_seconds": 2.0, "peak_bytes": 4_000_000_000},
        "peer": {"step_seconds": 6.0, "peak_bytes": 8_000_000_000},
        "ratios": {"times_faster": ratio, "memory_share": {**ratio, "median": 0.5}},
        "floor": {"times_above": 1.4},
        "same": True,
        **changes,
    }


def test_the_json_comes_back_and_the_table_has_its_figures(tmp_path: Path):
    path = write_result(tmp_path / "results", "dpo-chat", result())
    assert json.loads(path.read_text()) == result() == read_results(path.parent)["dpo-chat"]
    line = next(line for line in (path.parent / "README.md").read_text().splitlines() if "dpo-chat" in line)
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:5] == ["dpo-chat", "2.00", "6.00", "**3.00** [2.50, 3.25]", "4.00"]
    assert cells[5:8] == ["8.00", "**0.50** [2.50, 3.25]", "1.40"]
    assert cells[8] == "`python -m benchmarks dpo --peer trl`"
    assert sorted(each.name for each in path.parent.iterdir()) == ["README.md", "dpo-chat.json"]


def test_without_a_peer_cells_stay_empty_and_differing_steps_are_said():
    alone = result()
    for name in ("peer", "ratios", "same", "floor"):
        alone.pop(name)
    page = table_page(
        {"alone": alone, "odd": result(same=False), "scaling": {k: alone[k] for k in ("machine", "versions")}}
    )
    lines = {line.split("|")[1].strip(): line for line in page.splitlines() if line.startswith("| ")}
    assert lines["alone"].count("|  |") >= 1
    assert "odd (first steps differ)" in lines
    assert "scaling" not in lines
    assert page.count("A CPU, 2 cores (avx512_bf16); hf_align 0.1, trl 1.16.0") == 1


def test_columns_and_rows_have_as_many_cells():
    lines = [line for line in table_page({"a": result()}).splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1
