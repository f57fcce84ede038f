"""One side's run in a separate process: `python -m benchmarks.child out/spec.json` writes `out/result.json`."""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.spec import Spec

PACKAGES = ("torch", "transformers", "accelerate", "peft", "datasets")
MODULES = {"ours": "benchmarks.ours", "trl": "benchmarks.trl_peer"}


def run(spec: Spec) -> dict[str, Any]:
    """Run a spec; return everything about the run that goes into the results."""
    if spec.dtype == "bf16":  # set by `accelerate launch --mixed_precision bf16`; TRL's PPO reads only this
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"
    import torch
    from transformers import set_seed

    if spec.memory_cap is not None and torch.cuda.is_available():
        share = spec.memory_cap / torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, share))
    set_seed(spec.seed)
    result = import_module(MODULES[spec.side]).train(spec)
    versions = {name: version(name) for name in PACKAGES}
    if spec.side == "trl":
        versions["trl"] = import_module("trl").__version__
    return {**result, "threads": torch.get_num_threads(), "versions": versions}


if __name__ == "__main__":
    given = Spec.read(sys.argv[1])
    Path(given.out, "result.json").write_text(json.dumps(run(given)) + "\n", encoding="utf-8")
