"""Reward models on the embedded human ratings: the study that sets the defaults.

    python -m benchmarks.study cache --base hf-align-quickstart/base --cache study-cache-0 --layers 0
    python -m benchmarks.study features --base ... --cache study-cache-0 --features study-features
    python -m benchmarks.study heads --cache study-cache-0 --features study-features
    python -m benchmarks.study tables --cache study-cache-0

Each finished run is a line of `results/reward_study/`, with its settings, scores, versions, machine and command; a run
whose settings are there is skipped, so every command resumes. Choices are made on validation; the test split is read by
runs with `test` alone.
"""
