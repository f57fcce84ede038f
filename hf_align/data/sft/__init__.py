"""Preparation of demonstrations: standard, clean, good, each once, with a report of what was dropped and why."""
