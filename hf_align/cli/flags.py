"""Flags that several commands have, in the same words. Imports nothing heavy."""

import argparse


def add_json(parser: argparse.ArgumentParser, what: str = "the figures", *, instead_of: str = "lines") -> None:
    """Add `--json`, which writes what a command found for programs."""
    parser.add_argument(
        "--json", metavar="FILE", help=f"write {what} to FILE; - prints them instead of the {instead_of}"
    )


def add_page(parser: argparse.ArgumentParser) -> None:
    """Add `--report`, which writes a report's page."""
    parser.add_argument("--report", metavar="FILE", help="write one self-contained page (.html)")


def add_limit(parser: argparse.ArgumentParser) -> None:
    """Add `--limit`, which takes the first rows of a data set."""
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows (default: all)")


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add `--config`, which names a recipe."""
    parser.add_argument("--config", metavar="RECIPE.yaml", help="the recipe")


def add_dry_run(parser: argparse._ActionsContainer, what: str) -> None:
    """Add `--dry-run`, also as `--dry_run`, like a key of a recipe; `what` says what it does."""
    parser.add_argument("--dry-run", "--dry_run", action="store_true", help=what)
