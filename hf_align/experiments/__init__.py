"""Runs: recipes, one training run from start to end, the quickstart."""
