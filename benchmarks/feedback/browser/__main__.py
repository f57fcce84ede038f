"""Scripted sessions in Chromium: `python -m benchmarks.feedback.browser --sessions 200 --work DIR [--out FILE]`.

Ten sessions share a store and a server, a block; a block that is done is kept in DIR, so that the same command goes on
after a stop. The figures of all blocks go to FILE, benchmarks/results/feedback/page.json by default.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from benchmarks.feedback.browser.blocks import BLOCK, judge_block, run_blocks, sum_up
from benchmarks.machine import ROOT, commit, describe_machine
from hf_align.files import write_json
from hf_align.version import LIBRARIES, versions

OUT = ROOT / "benchmarks" / "results" / "feedback" / "page.json"


def main() -> None:
    """Run what is missing, write and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=200, metavar="N", help="sessions (%(default)s)")
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="keeps what is done")
    parser.add_argument("--out", type=Path, default=OUT, metavar="FILE", help="gets the figures")
    options = parser.parse_args()
    if options.sessions % BLOCK:
        parser.error(f"--sessions {options.sessions} is not a multiple of {BLOCK}")
    blocks = [judge_block(folder) for folder in run_blocks(options.work, options.sessions)]
    figures = {
        "command": f"python -m benchmarks.feedback.browser --sessions {options.sessions} --work DIR",
        **sum_up(blocks),
        "machine": describe_machine(),
        "versions": versions([*LIBRARIES, "gradio", "playwright", "sqlalchemy"]),
        "commit": commit(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.out, figures)
    print(json.dumps({key: figures[key] for key in ("sessions", "differences", "stuck", "left_share", "durable_ms")}))
    sys.exit(bool(any(figures["differences"].values()) or figures["stuck"]))


if __name__ == "__main__":
    main()
