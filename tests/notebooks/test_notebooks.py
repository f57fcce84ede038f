"""The notebooks: valid, stripped of outputs, and run from top to bottom in small, in a kernel of their own."""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.hub.conftest import environment, read_files
from tests.hub.stand_in import StandIn
from tests.tiny import save_tiny

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
NAMES = ["1_reward_model", "2_dpo_and_ipo", "3_ppo", "4_your_data_and_the_hub"]
IN_SMALL: Mapping[str, Mapping[str, Any]] = {
    "1_reward_model": {"PAIRS": 8, "STEPS": 2, "BATCH": 2, "SENTENCES": 8},
    "2_dpo_and_ipo": {"PAIRS": 8, "STEPS": 2, "BATCH": 2, "PROMPTS": 2, "NEW_TOKENS": 4},
    "3_ppo": {"REWARD_STEPS": 2, "REWARD_BATCH": 2, "EPISODES": 16, "BATCH": 4, "NEW_TOKENS": 4},
    "4_your_data_and_the_hub": {"STEPS": 2, "BATCH": 2, "MODEL_ON_HUB": "team/base", "PUSH_TO": "anna/mine"},
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
    (link,) = re.findall(r"\]\((https://colab\.research\.google\.com/github/[^)]+)\)", first)
    assert link.endswith(f"/blob/main/notebooks/{path.name}")


@each_notebook
def test_links_between_notebooks_hold(path: Path):
    for cell in nbformat.read(path, as_version=4).cells:
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", cell.source):
            assert (path.parent / link).exists()


def execute(name: str, folder: Path, env: Mapping[str, str]) -> Any:
    """Run a notebook in `folder` with a tiny model there, in small; its cells with their outputs."""
    save_tiny(folder / "model", max_position_embeddings=4096)
    notebook = nbformat.read(NOTEBOOKS[NAMES.index(name)], as_version=4)
    notebook.cells = [cell for cell in notebook.cells if "install" not in cell.metadata.get("tags", ())]
    place = next(n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    known = {node.id for node in ast.walk(ast.parse(notebook.cells[place].source)) if isinstance(node, ast.Name)}
    settings = {"MODEL": "model", **IN_SMALL[name]}
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
    """One thread, and no Hub."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def test_the_reward_model_notebook_runs(tmp_path: Path, quiet: dict[str, str]):
    notebook = execute("1_reward_model", tmp_path, quiet)
    assert "correlation with people" in printed(notebook)
    assert pictures(notebook) == 4
    assert json.loads((tmp_path / "reward-merged" / "config.json").read_text())["problem_type"] == "regression"


def test_the_dpo_notebook_runs(tmp_path: Path, quiet: dict[str, str]):
    notebook = execute("2_dpo_and_ipo", tmp_path, quiet)
    assert "DPO first loss 0.693" in printed(notebook)
    assert "IPO first loss 25.000" in printed(notebook)
    assert pictures(notebook) == 4


def test_the_ppo_notebook_runs(tmp_path: Path, quiet: dict[str, str]):
    notebook = execute("3_ppo", tmp_path, quiet)
    assert re.search(r"reward -?\d+\.\d\d -> -?\d+\.\d\d, KL", printed(notebook))
    assert pictures(notebook) == 5
    assert (tmp_path / "ppo" / "value_head.safetensors").exists()


def test_the_notebook_on_your_own_data_runs_and_pushes(tmp_path: Path):
    with StandIn().running() as hub:
        save_tiny(tmp_path / "on-hub")
        hub.add("team/base", read_files(tmp_path / "on-hub"))
        notebook = execute("4_your_data_and_the_hub", tmp_path, environment(hub, tmp_path / "home"))
        pushed = hub.repositories["anna/mine"].files
    assert f"{hub.url}/anna/mine" in printed(notebook)
    assert json.loads(pushed["adapter_config.json"])["base_model_name_or_path"] == "team/base"
    assert b"team/base" in pushed["README.md"]
