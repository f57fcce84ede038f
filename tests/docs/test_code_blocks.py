"""README and how-to pages on training run unchanged (with a tiny model in place of the quickstart's)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


PAGES = {
    "README.md": {"dpo", "ppo"},
    "docs/how-to/reward-model.md": {
        *("rankings", "reward", "reward-mean", "reward-merged", "reward-normalized", "tasks", "votes")
    },
    "docs/how-to/ensembles.md": {"ensemble"},
    "docs/how-to/sft.md": {"sft"},
    "docs/how-to/dpo-ipo.md": {"dpo", "dpo-4bit"},
    "docs/how-to/losses.md": {"own", "simpo"},
    "docs/how-to/ppo.md": {"ppo", "rloo"},
    "docs/how-to/moving-reference.md": {"moving"},
    "docs/how-to/online-dpo.md": {"judged", "online-dpo"},
    "docs/how-to/hybrid.md": {"hybrid"},
    "docs/how-to/benchmark.md": {"benchmark"},
    "docs/how-to/score.md": {"best.partial"},
    "docs/how-to/streaming.md": {"streamed"},
    "docs/how-to/search.md": {"search"},
    "docs/how-to/inspect-data.md": set(),
    "docs/how-to/choose.md": set(),
    "docs/how-to/convert.md": set(),
    "docs/how-to/export.md": set(),
    "docs/how-to/curves.md": {"curves"},
    "docs/how-to/runs.md": {"beta-0.1", "beta-0.5"},
    "docs/how-to/memory.md": set(),
    "docs/how-to/plan.md": set(),
    "docs/how-to/acceleration.md": set(),
    "docs/how-to/command-line.md": set(),
    "docs/how-to/evaluate-reward.md": set(),
    "docs/how-to/evaluate-policy.md": {"policy.html"},
    "docs/how-to/over-optimization.md": {"front.html"},
    "docs/how-to/resume.md": {"dpo"},
}


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_run_in_order(page: str, tiny_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "hf-align-quickstart").mkdir()
    (tmp_path / "hf-align-quickstart" / "base").symlink_to(tiny_model_dir)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    exec(compile("\n".join(blocks), page, "exec"), {})
    assert {path.name for path in tmp_path.glob("out/*")} == PAGES[page]


def test_pages_link_to_pages_that_exist():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for link in re.findall(r"\]\((?!http|#)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
