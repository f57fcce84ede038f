"""The how-to page's code runs unchanged against the stand-in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cards import card_data
from tests.hub.conftest import read_files
from tests.hub.stand_in import StandIn

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "push.md"


def test_the_page_s_code_runs_in_order(hub: StandIn, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hf-align-quickstart").mkdir()
    (tmp_path / "hf-align-quickstart" / "base").symlink_to(base)
    hub.add("team/base", read_files(base))
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    exec(compile("\n".join(blocks).replace("ORG/", "team/"), PAGE.name, "exec"), {})
    adapter, policy = (hub.repositories[f"team/{name}"].files for name in ("my-adapter", "my-policy"))
    assert "adapter_model.safetensors" in adapter and "model.safetensors" in policy
    data = card_data(adapter["README.md"])
    assert (data.base_model, data.license) == ("team/base", "apache-2.0")
    assert "0.55 to 0.67" in (tmp_path / "out" / "dpo" / "README.md").read_text(encoding="utf-8")
