"""Rules of ARCHITECTURE.md: imports go down, without cycles, and private names stay in their file."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).parents[1]
AT_THE_TOP = ("trainers", "collators", "model_cards")
MAY_IMPORT_INSIDE = {"hf_align.cli.main"}
"""Command dispatch. (`hf_align/__init__` finds its names through `hf_align.lazy`.)"""
EDGES = """
import grimp, json
graph = grimp.build_graph("hf_align", cache_dir=None)
imported = graph.find_modules_directly_imported_by
print(json.dumps([(one, other) for one in sorted(graph.modules) for other in sorted(imported(one))]))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as installed: with `trainers`, `collators` and `model_cards` below `hf_align`."""
    target = tmp_path_factory.mktemp("installed")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "hf_align", target / "hf_align", ignore=ignore)
    for name in AT_THE_TOP:
        shutil.copytree(ROOT / name, target / "hf_align" / name, ignore=ignore)
    return target


@pytest.fixture(scope="module")
def edges(tree: Path) -> list[tuple[str, str]]:
    ran = subprocess.run([sys.executable, "-c", EDGES], cwd=tree, capture_output=True, text=True, check=True)
    return [(one, other) for one, other in json.loads(ran.stdout)]


def test_imports_go_down_the_floors(tree: Path) -> None:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    options = [str(ROOT / "pyproject.toml"), "--no-cache"]
    ran = subprocess.run([sys.executable, "-c", command, *options], cwd=tree, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 kept" in ran.stdout


def test_the_packages_at_the_top_are_in_the_graph(edges: list[tuple[str, str]]) -> None:
    modules = {module for edge in edges for module in edge}
    assert {"hf_align.trainers.dpo", "hf_align.collators.encoding", "hf_align.model_cards.render"} <= modules


def test_no_files_import_each_other_in_a_circle(edges: list[tuple[str, str]]) -> None:
    # The root package lists all names for type checkers but imports none of them.
    edges = [edge for edge in edges if "hf_align" not in edge]
    names = sorted({module for edge in edges for module in edge})
    number = {name: index for index, name in enumerate(names)}
    rows, columns = np.array([(number[one], number[other]) for one, other in edges]).T
    graph = csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(names), len(names)))
    count, labels = connected_components(graph, directed=True, connection="strong")
    circles = [[name for name, label in zip(names, labels, strict=True) if label == one] for one in range(count)]
    assert [circle for circle in circles if len(circle) > 1] == []


def for_type_checkers(nodes: list[ast.AST]) -> set[ast.AST]:
    """Code under `if TYPE_CHECKING:`; such imports are in the graph, and so covered by the other tests."""
    blocks = [node for node in nodes if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    return {node for block in blocks for node in ast.walk(block)}


@pytest.fixture(scope="module")
def our_imports(tree: Path) -> list[tuple[str, ast.ImportFrom]]:
    """Every `from hf_align... import ...` that runs, with the module that it stands in."""
    imports = []
    for path in sorted((tree / "hf_align").rglob("*.py")):
        module = ".".join(path.relative_to(tree).with_suffix("").parts)
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        skipped = for_type_checkers(nodes)
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hf_align":
                imports += [(module, node)] * (node not in skipped)
    return imports


def test_no_private_name_of_one_module_is_used_by_another(our_imports: list[tuple[str, ast.ImportFrom]]) -> None:
    used = [
        f"{module}: {alias.name} of {node.module}"
        for module, node in our_imports
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert used == []


def test_our_own_modules_are_imported_at_the_top(our_imports: list[tuple[str, ast.ImportFrom]]) -> None:
    inside = {f"{module}: {node.module}" for module, node in our_imports if node.col_offset}
    assert {place for place in inside if place.split(":")[0] not in MAY_IMPORT_INSIDE} == set()
