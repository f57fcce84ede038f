"""Tests and benchmarks change nothing in our modules: they use arguments, inputs and the environment.

A patched name says nothing about what a user can do, and keeps a test green when the code no longer looks it up there.
Modules of other libraries, objects that a test made and environment variables may be patched.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("hf_align", "trainers", "collators", "model_cards", "benchmarks", "notebooks", "badges")
PATCHERS = {"setattr", "delattr", "setitem", "delitem", "patch"}
"""Functions of monkeypatch, of unittest.mock and builtin ones that change names of another module."""


def is_ours(dotted: str) -> bool:
    return dotted.split(".")[0] in OURS


def imported(nodes: list[ast.AST]) -> dict[str, str]:
    """What each imported name stands for, dotted."""
    names = {}
    for node in nodes:
        for alias in getattr(node, "names", ()) if isinstance(node, ast.Import | ast.ImportFrom) else ():
            if isinstance(node, ast.ImportFrom):
                names[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
            else:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
    return names


def target_of(node: ast.expr, names: dict[str, str]) -> str:
    """The place that an expression names, dotted, "" if it is no imported one."""
    if isinstance(node, ast.JoinedStr):
        node = node.values[0] if node.values else node
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.Attribute):
        owner = target_of(node.value, names)
        return f"{owner}.{node.attr}" if owner else ""
    if isinstance(node, ast.Subscript):
        return target_of(node.value, names)
    return names.get(node.id, "") if isinstance(node, ast.Name) else ""


def is_patcher(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    of_patch = name in ("object", "dict", "multiple") and ast.unparse(function).endswith(f"patch.{name}")
    return name in PATCHERS or of_patch


def patches(source: str) -> Iterator[tuple[int, str]]:
    """Line and target of everything in a test's source that changes a name of ours."""
    nodes = list(ast.walk(ast.parse(source)))
    names = imported(nodes)
    for node in nodes:
        changed: list[ast.expr] = []
        if isinstance(node, ast.Call):
            # The second argument may be the name of an entry of sys.modules.
            changed = node.args[:2] if is_patcher(node.func) else []
        elif isinstance(node, ast.Assign | ast.Delete):
            changed = [each for each in node.targets if isinstance(each, ast.Attribute | ast.Subscript)]
        elif isinstance(node, ast.AugAssign | ast.AnnAssign) and isinstance(node.target, ast.Attribute | ast.Subscript):
            changed = [node.target]
        for target in filter(is_ours, (target_of(each, names) for each in changed)):
            yield cast(Any, node).lineno, target


@pytest.mark.parametrize("folder", ["tests", "benchmarks"])
def test_no_module_of_ours_is_patched(folder: str):
    actual = [
        f"{path.relative_to(ROOT)}:{line}: {target}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, target in patches(path.read_text(encoding="utf-8"))
    ]
    assert actual == [], "give the code an argument, an input or an object instead"


@pytest.mark.parametrize(
    "line",
    [
        "monkeypatch.setattr(runner, 'LIMIT', 1)",
        "monkeypatch.setattr(runner.torch, 'mm', None)",
        "monkeypatch.setattr('hf_align.models.runner.LIMIT', 1)",
        "monkeypatch.setattr(f'hf_align.{name}.LIMIT', 1)",
        "monkeypatch.setitem(runner.TABLE, 'a', 1)",
        "monkeypatch.setitem(sys.modules, 'hf_align.models.runner', None)",
        "monkeypatch.setattr(Model, 'forward', None)",
        "patch.object(runner, 'LIMIT', 1)",
        "mock.patch('hf_align.models.runner.LIMIT', 1)",
        "setattr(runner, 'LIMIT', 1)",
        "runner.LIMIT = 1",
        "runner.TABLE['a'] += 1",
        "del runner.LIMIT",
    ],
)
def test_a_patch_is_found(line: str):
    head = "import sys\nfrom hf_align.models import runner\nfrom hf_align.models.reward import RewardModel as Model\n"
    assert [number for number, _ in patches(head + line)] == [4]


def test_what_is_not_ours_may_be_patched():
    lines = ["import sys", "import torch", "model = 1", "model.size = 2", "torch.x = 1", "m.setattr(torch, 'mm', 1)"]
    assert list(patches("\n".join([*lines, "m.setitem(sys.modules, 'matplotlib', None)"]))) == []
