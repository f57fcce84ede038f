"""What best-of-N gains: `python -m benchmarks.best_of POLICY MODEL [--n 8] [--prompts 64]` prints figures as JSON.

Samples to held-out embedded prompts are scored by the reward model and judged by VADER, on which nothing was trained.
The best by the reward model is compared with the mean of the prompt's samples, the expectation without choosing, with
a bootstrap interval over prompts; and with the best by VADER itself, the most that any choice could gain.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
from transformers.utils import logging

from benchmarks.results import origin
from hf_align.data.embedded.rows import make_prompts
from hf_align.data.parts import Parts
from hf_align.evaluation import Sampling, sample_best, vader_scores
from hf_align.statistics import bootstrap_interval


def measure(policy: str, model: str, prompts: int, sampling: Sampling, parts: Parts) -> dict[str, Any]:
    """VADER's score of the samples on average, of those that the reward model prefers, and of VADER's own choice."""
    scored = sample_best(policy, model, make_prompts("test", prompts), sampling, keep="all", parts=parts)
    rows = scored.rows.to_list()
    judged = [np.asarray(vader_scores(row["responses"])) for row in rows]
    best = [int(np.argmax(row["scores"])) for row in rows]
    worst = [int(np.argmin(row["scores"])) for row in rows]
    mean = np.asarray([each.mean() for each in judged])
    chosen = {
        "best": np.asarray([each[n] for each, n in zip(judged, best, strict=True)]),
        "worst": np.asarray([each[n] for each, n in zip(judged, worst, strict=True)]),
        "best_by_vader": np.asarray([each.max() for each in judged]),
    }
    gains = {
        name: {
            "vader": float(values.mean()),
            "gain": float((values - mean).mean()),
            "gain_interval": bootstrap_interval(np.mean, values - mean),
        }
        for name, values in chosen.items()
    }
    figures = {name: value for name, value in scored.figures.items() if name != "keep"}
    return {**figures, "vader_of_samples": float(mean.mean()), **gains}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policy")
    parser.add_argument("model")
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--max-new-tokens", type=int, default=32)
    parser.add_argument("--parts", metavar="DIR", help="keep finished blocks here, to go on after a kill")
    options = parser.parse_args()
    logging.set_verbosity_error()
    sampling = Sampling(options.n, max_new_tokens=options.max_new_tokens)
    figures = measure(options.policy, options.model, options.prompts, sampling, Parts(options.parts))
    print(json.dumps({**figures, **origin()}, indent=2))


if __name__ == "__main__":
    main()
