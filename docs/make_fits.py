"""Write docs/reference/fits.md from plans of known shapes: `python -m docs.make_fits`.

The plans take minutes; they are kept in benchmarks/results/fits.json, and only missing ones are made. `--again` makes
all anew, as a change of what the planner counts needs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from hf_align.cli.console import Screen, quiet_libraries
from hf_align.files import write_json
from hf_align.planning.device import Device
from hf_align.planning.fitting import cheapest_changes
from hf_align.planning.settings import Settings, named_algorithm

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "fits.md"
PLANS = ROOT / "benchmarks" / "results" / "fits.json"
SHAPES = ROOT / "benchmarks" / "shapes"
NAMES = {
    "qwen2.5-7b": "Qwen2.5-7B",
    "llama-3.1-8b": "Llama-3.1-8B",
    "gemma-2-9b": "Gemma-2-9B",
    "llama-3.1-70b": "Llama-3.1-70B",
}
"""Models by their file in `benchmarks/shapes/`."""
SIZES = ("16GB", "24GB", "40GB", "80GB")
ALGORITHMS = {"sft": "SFT", "reward": "reward model", "dpo": "DPO, IPO", "ppo": "PPO", "online-dpo": "online DPO"}
PAIRS: dict[str, Any] = {"max_length": 1024}
SAMPLED: dict[str, Any] = {"max_prompt_length": 512, "max_new_tokens": 512}
ROWS = 8
INTRODUCTION = f"""\
# What fits

<!-- Written by `python -m docs.make_fits`: change the script, not this page. -->

The cheapest settings with which a run fits one GPU, as [`hf-align plan`](../how-to/plan.md) finds them: full training
without recomputation first, then a smaller micro-batch with more accumulation, recomputation, LoRA (r 16 on all linear
layers), frozen weights in 8 and in 4 bits. Nothing of it was run: the figures are planned, from the models' configs (in
`benchmarks/shapes/`), for a GPU that computes in bfloat16 and has all of its memory free, with the planner's margin.

An optimizer step has {ROWS} rows (of PPO and online DPO: responses). A row is a prompt of 512 tokens with responses of
512: two of DPO, IPO and reward models, one of SFT (1,024 tokens in all) and PPO. The optimizer is AdamW. PPO has a
value head and, as online DPO, a reward function: a reward model that isn't an adapter on the same base needs its own
memory besides. IPO takes what DPO does.

"2 × 4" is `per_device_train_batch_size` × `gradient_accumulation_steps`; "sel." and "full" behind it are
`activation_recompute`, which SFT has in full unless told otherwise (TRL's `gradient_checkpointing`); the memory is what
the device needs, margin included. "–": none of these changes is enough.
"""


def planned(shape: str, algorithm: str) -> dict[str, Any]:
    """By size of the GPU the cheapest changes that fit, with the bytes needed; None where there are none."""
    lengths = SAMPLED if algorithm in ("ppo", "online-dpo") else PAIRS
    values = {"per_device_train_batch_size": ROWS, **lengths}
    settings = Settings(str(SHAPES / f"{shape}.json"), named_algorithm(algorithm), values, Device.of(SIZES[-1]))
    cells: dict[str, Any] = {}
    for size in reversed(SIZES):  # where the largest has no way, no smaller one has
        here = dataclasses.replace(settings, device=Device.of(size))
        changes = None if None in cells.values() else cheapest_changes(here)
        cells[size] = None if changes is None else {"changes": changes, "bytes": here.changed(**changes).device_bytes}
    return cells


def cell(plan: dict[str, Any] | None, default: str | None = None) -> str:
    """A plan in a few words; `default` is the recomputation that the algorithm has by itself."""
    if plan is None:
        return "–"
    changes = plan["changes"]
    bits = {"8bit": ", 8-bit", "4bit": ", 4-bit"}.get(changes.get("quantization"), "")
    kind = f"LoRA{bits}" if changes.get("lora") else "full"
    rows, times = changes.get("per_device_train_batch_size", ROWS), changes.get("gradient_accumulation_steps", 1)
    asked = changes.get("activation_recompute", default)
    recompute = {None: "", "selective": " sel.", "full": " full"}[asked]
    return f"{kind}; {rows} × {times}{recompute}; {plan['bytes'] / 2**30:.1f} GiB"


def page(plans: dict[str, dict[str, Any]]) -> str:
    """The page."""
    lines = [INTRODUCTION]
    for shape, name in NAMES.items():
        lines += [f"## {name}", "", f"| | {' | '.join(size.replace('GB', ' GB') for size in SIZES)} |"]
        lines.append("| --- " * (1 + len(SIZES)) + "|")
        for algorithm, title in ALGORITHMS.items():
            cells, default = plans[f"{shape} {algorithm}"], "full" if algorithm == "sft" else None
            lines.append(f"| {title} | {' | '.join(cell(cells[size], default) for size in SIZES)} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Make the missing plans and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="make all plans anew")
    again = parser.parse_args().again
    plans = {} if again or not PLANS.exists() else json.loads(PLANS.read_text())
    for shape in NAMES:
        for algorithm in ALGORITHMS:
            if f"{shape} {algorithm}" not in plans:
                with quiet_libraries(Screen()):
                    plans[f"{shape} {algorithm}"] = planned(shape, algorithm)
                write_json(PLANS, plans)
                print(f"{shape} {algorithm}", flush=True)
    PAGE.write_text(page(plans), encoding="utf-8")
    print(f"Wrote {PAGE}")


if __name__ == "__main__":
    main()
