"""The how-to page's examples run unchanged, with a tiny model in place of the quickstart's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "rollouts.md"


def test_the_blocks_run_in_order(tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "hf-align-quickstart").mkdir()
    (tmp_path / "hf-align-quickstart" / "base").symlink_to(tiny_model_dir)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    exec(compile("\n".join(blocks), PAGE.name, "exec"), {})
