"""The site's navigation and links are consistent, and it builds in strict mode."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from docs.site_hooks import on_page_markdown
from tests.docs.pages import DOCS, ROOT, prose, run
from tests.tiny import save_tiny

PAGES = sorted(DOCS.rglob("*.md"))


def entries(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from entries(part)


def anchors(page: Path) -> set[str]:
    """The ids of a page's headings, as in markdown's toc."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    words = [re.sub(r"[^\w\s-]", "", heading.replace("`", "")).strip().lower() for heading in headings]
    return {re.sub(r"[-\s]+", "-", text) for text in words}


def test_the_navigation_has_every_page_once():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = list(entries(config["nav"]))
    assert sorted(listed) == [page.relative_to(DOCS).as_posix() for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_links_lead_to_files_and_headings_that_exist(page: Path):
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", prose(page)):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT), f"{link} leads out of the repository"
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_first_pages_code_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_tiny(tmp_path / "hf-align-quickstart" / "base")
    monkeypatch.chdir(tmp_path)
    assert run(DOCS / "index.md")["trainer"].state.global_step == 2


def test_links_that_lead_out_of_the_site_become_text():
    page = SimpleNamespace(file=SimpleNamespace(src_uri="how-to/a.md"))
    text = "[in](../b.md#c), [out](../../README.md), [web](https://example.org), [here](#d), ![picture](../e.png)"
    assert on_page_markdown(text, page) == text.replace("[out](../../README.md)", "out")


def test_the_site_builds_without_a_warning(tmp_path: Path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "concepts" / "kl.html").exists()
    assert not list((tmp_path / "site").rglob("*.py"))
