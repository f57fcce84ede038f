"""Time and memory of `inspect_preferences`: `python -m benchmarks.inspect_speed [--rows N ...]` prints figures as JSON.

Each number of rows is inspected in a process of its own, from a stream, so that all rows are never in memory at once.
Rows are made of the embedded sentences: a prompt of two, responses of about 60 words, a margin and three votes; one row
in a hundred is a copy, a near copy or a contradiction of an earlier one. With `--sentences 1` prompts have one sentence
and a number: of 200,000 each stands there eleven times in nearly the same words. Memory is the process's maximum
resident set above that after an inspection of a few rows, memory-mapped files included.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import pstats
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from datasets import IterableDataset

from benchmarks.measure import memory
from benchmarks.ranking_cost import reset_peak
from benchmarks.results import origin
from hf_align.data import inspect_preferences, load_ratings

WARM_UP = 2000
WORDS = 60


def made_rows(count: int, prompt_sentences: int = 2, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Rows as the module's docstring describes them."""
    sentences = load_ratings()["text"][:]
    rng = np.random.default_rng(seed)
    earlier: dict[str, Any] = {}

    def response() -> str:
        words: list[str] = []
        while len(words) < WORDS:
            words += sentences[rng.integers(len(sentences))].split()
        return " ".join(words)

    for number in range(count):
        asked = " ".join(sentences[rng.integers(len(sentences))] for _ in range(prompt_sentences))
        row = {"prompt": f"{asked} What do you say to {number}?"}
        row |= {"chosen": response(), "rejected": response()}
        row |= {"margin": float(rng.integers(1, 20)) / 5, "votes": [1.0, 1.0, float(rng.integers(2))]}
        if number % 100 == 99:
            kind = number // 100 % 3
            row = dict(earlier)
            if kind == 1:
                row["chosen"] = earlier["chosen"].rsplit(" ", 1)[0]
            elif kind == 2:
                row |= {"chosen": earlier["rejected"], "rejected": earlier["chosen"]}
        elif number % 100 == 50:
            earlier = row
        yield row


def measure(rows: int, sentences: int, tokenizer: str | None, profile: bool) -> dict[str, Any]:
    """Seconds and growth of memory of one inspection, in this process."""
    stream = IterableDataset.from_generator(made_rows, gen_kwargs={"count": rows, "prompt_sentences": sentences})
    inspect_preferences(list(made_rows(WARM_UP)), tokenizer)
    for _ in stream.take(WARM_UP):  # what makes the rows is in memory, too
        pass
    held = reset_peak()
    profiler = cProfile.Profile()
    start, start_cpu = time.perf_counter(), time.process_time()
    if profile:
        profiler.enable()
    inspection = inspect_preferences(stream, tokenizer)
    profiler.disable()
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    growth = memory()["peak"] - held
    if profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(45)
    making = time.perf_counter()
    for _ in stream:
        pass
    return {
        "rows": inspection.facts["rows"],
        "seconds": seconds - (time.perf_counter() - making),
        "cpu_seconds_with_making_the_rows": cpu,
        "growth_bytes": growth,
        "start_bytes": held,
        "findings": {finding.kind: len(finding.rows) for finding in inspection.findings},
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000, 100_000, 200_000])
    parser.add_argument("--sentences", type=int, default=2, metavar="N", help="sentences of a prompt (%(default)s)")
    parser.add_argument("--tokenizer", help="name or folder: counts tokens and looks for special ones")
    parser.add_argument("--profile", action="store_true", help="print the functions that take most time to stderr")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.rows[0], options.sentences, options.tokenizer, options.profile)))
        return
    shown = [argument for argument in sys.argv[1:] if argument != "--profile"]
    runs = []
    for rows in options.rows:
        command = [sys.executable, "-m", "benchmarks.inspect_speed", "--here", "--rows", str(rows)]
        command += ["--sentences", str(options.sentences)]
        command += ["--tokenizer", options.tokenizer] if options.tokenizer else []
        command += ["--profile"] if options.profile else []
        runs.append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
    figures = {
        "command": " ".join(["python -m benchmarks.inspect_speed", *shown]),
        "runs": runs,
        "threads": os.environ.get("OMP_NUM_THREADS"),
        **origin(),
    }
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
