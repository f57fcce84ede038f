"""Runs: recipes, single training runs, and the quickstart."""
