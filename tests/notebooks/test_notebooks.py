"""The notebooks: valid, stripped of outputs, and run from top to bottom with the embedded model, in smoke size.

Each runs in a separate kernel, changed only in its parameters: a folder `base` with the embedded model replaces the one
that a cell would make.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.hub.conftest import environment
from tests.hub.stand_in import StandIn

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
_SPEC = importlib.util.spec_from_file_location("badges", NOTEBOOKS[0].with_name("badges.py"))
assert _SPEC is not None and _SPEC.loader is not None
badges: Any = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(badges)
NAMES = ["1_reward_model", "2_dpo_and_ipo", "3_ppo", "4_your_data_and_the_hub"]
IN_SMALL: Mapping[str, Mapping[str, Any]] = {
    "1_reward_model": {"PAIRS": 8, "RANKINGS": 8, "STEPS": 2, "BATCH": 2, "SENTENCES": 8},
    "2_dpo_and_ipo": {"PAIRS": 8, "STEPS": 2, "BATCH": 2, "PROMPTS": 2, "NEW_TOKENS": 4},
    "3_ppo": {"REWARD_STEPS": 2, "REWARD_BATCH": 2, "EPISODES": 16, "BATCH": 4, "NEW_TOKENS": 4},
    "4_your_data_and_the_hub": {
        "STEPS": 2,
        "BATCH": 2,
        "COMPARISONS": 4,
        "MODEL_ON_HUB": "team/base",
        "PUSH_TO": "anna/mine",
    },
}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_all_four_are_there():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@each_notebook
def test_it_is_a_valid_notebook_without_outputs(path: Path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in code_cells(notebook):
        assert not cell.outputs
        assert cell.execution_count is None
    assert set(notebook.metadata) == {"accelerator", "colab", "kernelspec", "language_info"}


@each_notebook
def test_its_code_is_python_but_for_the_install_cell(path: Path):
    tagged = {"install": 0, "parameters": 0}
    for cell in code_cells(nbformat.read(path, as_version=4)):
        for tag in cell.metadata.get("tags", ()):
            tagged[tag] += 1
        if "install" in cell.metadata.get("tags", ()):
            assert all(line.startswith("%pip install") for line in cell.source.splitlines())
        else:
            ast.parse(cell.source)
    assert tagged == {"install": 1, "parameters": 1}


@each_notebook
def test_the_badge_opens_this_notebook(path: Path):
    first = nbformat.read(path, as_version=4).cells[0].source
    (link,) = badges.LINK.findall(first)
    named = badges.repository((badges.ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert link == badges.link(path.name, named), "run `make badges`"


def test_badges_lead_where_the_repository_is_named(tmp_path: Path):
    before = (badges.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(before, encoding="utf-8")
    shutil.copytree(NOTEBOOKS[0].parent, tmp_path / "notebooks")
    with pytest.raises(SystemExit, match="OWNER/NAME"):
        badges.main(["https://github.com/one/place"], tmp_path)
    for name in ("one/place", "another/one"):
        badges.main([name], tmp_path)
        urls = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]["urls"]
        assert urls["Repository"] == f"https://github.com/{name}"
        for path in (tmp_path / "notebooks").glob("*.ipynb"):
            nbformat.validate(nbformat.read(path, as_version=4))
            assert f"github/{name}/blob/main/notebooks/{path.name})" in path.read_text(encoding="utf-8")
    known, after = (tomllib.loads(text) for text in (before, pyproject.read_text(encoding="utf-8")))
    for project in (known["project"], after["project"]):
        project.pop("urls", None)
    assert after == known


@each_notebook
def test_links_between_notebooks_hold(path: Path):
    for cell in nbformat.read(path, as_version=4).cells:
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", cell.source):
            assert (path.parent / link).exists()


def execute(name: str, folder: Path, base: str, env: Mapping[str, str]) -> Any:
    """Run a notebook in `folder` at small size, with the model in `base`; return its cells with their outputs."""
    (folder / "base").symlink_to(base)
    notebook = nbformat.read(NOTEBOOKS[NAMES.index(name)], as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", ())]
    place = next(n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    known = {node.id for node in ast.walk(ast.parse(notebook.cells[place].source)) if isinstance(node, ast.Name)}
    settings = IN_SMALL[name]
    assert set(settings) <= known, "a parameter was renamed"
    lines = [f"{parameter} = {value!r}" for parameter, value in settings.items()]
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**env, "IPYTHONDIR": str(folder / "ipython"), "JUPYTER_RUNTIME_DIR": str(folder / "runtime")})
    return notebook


def printed(notebook: Any) -> str:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return "".join(output.get("text", "") for output in outputs if output.output_type == "stream")


def pictures(notebook: Any) -> int:
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.fixture
def quiet() -> dict[str, str]:
    """No Hub."""
    return {**os.environ, "HF_HUB_OFFLINE": "1"}


@pytest.mark.slow
def test_the_reward_model_notebook_runs(tmp_path: Path, base_dir: str, quiet: dict[str, str]):
    notebook = execute("1_reward_model", tmp_path, base_dir, quiet)
    assert "correlation with people" in printed(notebook)
    for said in ("ranked: ", "trained on votes: ", "people's votes (floor ", "liked ", "calibration"):
        assert said in printed(notebook).lower(), said
    assert pictures(notebook) == 5
    assert "<html" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "reward-merged" / "config.json").read_text())["problem_type"] == "regression"


@pytest.mark.slow
def test_the_dpo_notebook_runs(tmp_path: Path, base_dir: str, quiet: dict[str, str]):
    notebook = execute("2_dpo_and_ipo", tmp_path, base_dir, quiet)
    assert "DPO first loss 0.693" in printed(notebook)
    assert "IPO first loss 25.000" in printed(notebook)
    assert pictures(notebook) == 3


@pytest.mark.slow
def test_the_ppo_notebook_runs(tmp_path: Path, base_dir: str, quiet: dict[str, str]):
    notebook = execute("3_ppo", tmp_path, base_dir, quiet)
    assert re.search(r"reward -?\d+\.\d\d -> -?\d+\.\d\d, KL", printed(notebook))
    assert pictures(notebook) == 4
    assert (tmp_path / "ppo" / "value_head.safetensors").exists()


@pytest.mark.slow
def test_the_notebook_on_your_own_data_runs_and_pushes(tmp_path: Path, tiny_model_dir: str):
    with StandIn().running() as hub:
        hub.add("team/base", {"config.json": (Path(tiny_model_dir) / "config.json").read_bytes()})
        notebook = execute("4_your_data_and_the_hub", tmp_path, tiny_model_dir, environment(hub, tmp_path / "home"))
        pushed = hub.repositories["anna/mine"].files
    assert f"{hub.url}/anna/mine" in printed(notebook)
    for said in ("Not yet: ", "6 dropped identical_responses", "7 dropped empty_response", "9 dropped duplicate_pair"):
        assert said in printed(notebook), said
    assert "8 changed broken_encoding" in printed(notebook) and "no errors" in printed(notebook)
    assert json.loads(pushed["adapter_config.json"])["base_model_name_or_path"] == "team/base"
    assert b"team/base" in pushed["README.md"]
    assert "2 of 4 valid comparisons" in printed(notebook) and "2 tasks waiting for answers" in printed(notebook)
    assert "2 pairs with the columns ['prompt', 'chosen', 'rejected', 'margin'" in printed(notebook)
    shown = [str(output.get("data")) for cell in code_cells(notebook) for output in cell.outputs]
    assert sum("<iframe" in each and "http://127.0.0.1:" in each for each in shown) == 1, "the page is below its cell"
