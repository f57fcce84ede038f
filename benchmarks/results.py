"""Results on disk: one JSON file per benchmark, and one table of all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.machine import commit, describe_machine
from hf_align.files import write_text
from hf_align.version import versions

INTRODUCTION = """\
# Benchmark results

<!-- Written by `python -m benchmarks` from the JSON files beside it: run that instead of editing. -->

Median step time and peak memory of both sides, each run in a separate process. *Times faster* is the peer's step time
over ours and *memory* our peak over the peer's: the median over pairs of runs, with minimum and maximum in brackets.
*Above floor* is our step time over that of the unavoidable matrix products. Method and meaning of the figures:
[docs/benchmarks.md](../../docs/benchmarks.md). Machines, versions and commands are in the JSON files and, for the
latest run, in the last column.
"""
COLUMNS = (
    "benchmark",
    "ours, s",
    "peer, s",
    "times faster",
    "ours, GB",
    "peer, GB",
    "memory",
    "above floor",
    "command",
)


def origin() -> dict[str, Any]:
    """Machine, versions and commit of a measurement."""
    return {"machine": describe_machine(), "versions": versions(), "commit": commit()}


def write_result(folder: Path, name: str, result: dict[str, Any]) -> Path:
    """Save a result as `name.json`, whole or not at all, and the table of all results as `README.md`."""
    path = folder / f"{name}.json"
    write_text(path, json.dumps(result, indent=1) + "\n")
    write_text(folder / "README.md", table_page(read_results(folder)))
    return path


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """All results in a folder, by name."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def table_page(results: dict[str, dict[str, Any]]) -> str:
    """The page: a table of the paired benchmarks, one of our own runs without a peer, machines and versions."""
    paired = [row(name, result) for name, result in results.items() if "ours" in result]
    lines = [INTRODUCTION, *markdown_table(COLUMNS, paired), ""]
    machines = sorted({machine_line(result) for result in results.values()})
    lines += ["Machines and versions:", "", *(f"- {machine}" for machine in machines), ""]
    return "\n".join(lines)


def row(name: str, result: dict[str, Any]) -> list[str]:
    """A benchmark's row of the table; without a peer its cells are empty."""
    ours, peer, share = result["ours"], result.get("peer"), result.get("ratios", {})
    floor = result.get("floor")
    return [
        name if result.get("same", True) else f"{name} (first steps differ)",
        f"{ours['step_seconds']:.2f}",
        f"{peer['step_seconds']:.2f}" if peer else "",
        spread(share["times_faster"]) if share else "",
        f"{ours['peak_bytes'] / 1e9:.2f}",
        f"{peer['peak_bytes'] / 1e9:.2f}" if peer else "",
        spread(share["memory_share"]) if share else "",
        f"{floor['times_above']:.2f}" if floor else "",
        f"`{result['command']}`",
    ]


def spread(ratio: dict[str, float]) -> str:
    """Median with minimum and maximum."""
    return f"**{ratio['median']:.2f}** [{ratio['least']:.2f}, {ratio['most']:.2f}]"


def machine_line(result: dict[str, Any]) -> str:
    """The machine of a result in one line."""
    machine, versions = result["machine"], result["versions"]
    kind = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
    flags = f" ({', '.join(machine['bf16'])})" if machine["bf16"] and not machine["gpu"] else ""
    return f"{kind}{flags}; " + ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    lines = [columns, ["---"] + ["---:"] * (len(columns) - 2) + ["---"], *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
