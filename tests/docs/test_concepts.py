"""Every concept page's blocks run and print what the page shows, and the functions that it names exist."""

import importlib
import re
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks, prose, run

PAGES = sorted((DOCS / "concepts").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_print_what_the_page_shows(page: Path):
    run(page)


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "index"], ids=lambda page: page.stem)
def test_a_page_shows_its_formula_on_numbers(page: Path):
    languages = [language for language, _, _ in blocks(page)]
    assert "python" in languages
    assert "text" in languages


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_names_on_a_page_exist(page: Path):
    for name in re.findall(r"`(hf_align(?:\.\w+)*)`", prose(page)):
        module, parts = "hf_align", name.split(".")[1:]
        item = importlib.import_module(module)
        for part in parts:
            module = f"{module}.{part}"
            item = getattr(item, part) if hasattr(item, part) else importlib.import_module(module)


def test_the_overview_lists_every_page():
    listed = set(re.findall(r"\]\((\w[\w-]*\.md)\)", prose(DOCS / "concepts" / "index.md")))
    assert listed == {page.name for page in PAGES} - {"index.md"}
