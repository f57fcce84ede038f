"""The registry, and algorithms that other packages add to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hf_align import errors
from hf_align.algorithms import ALGORITHMS, ENTRY_POINTS, Algorithm, Algorithms

PLUGIN = """
from hf_align.algorithms import Algorithm
KTO = Algorithm("kto", "my_kto:Trainer", "my_kto:Config", "prompts", ("reward",), "train with KTO")
SAC = Algorithm("sac", "", "")
"""
OTHER = "hf_align.no_such_module:KTO"


def install(folder: Path, **entries: str) -> Path:
    """A package with such entry points, to be put on a process's path."""
    info = folder / "plugin_of_others-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-others\nVersion: 1\n")
    lines = [f"{name} = {place}\n" for name, place in entries.items()]
    (info / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{''.join(lines)}")
    (folder / "plugin_of_others.py").write_text(PLUGIN)
    return folder


def registry(folder: Path, monkeypatch: pytest.MonkeyPatch, **entries: str) -> Algorithms:
    """A registry with these entry points installed."""
    monkeypatch.syspath_prepend(install(folder, **entries))
    return Algorithms(*ALGORITHMS.builtin.values())


@pytest.mark.parametrize("name", ALGORITHMS.builtin)
def test_trainer_config_and_curves_are_there(name: str):
    trainer, config = ALGORITHMS[name].load()
    assert (trainer.__name__, config.__name__) == tuple(
        place.partition(":")[2] for place in (ALGORITHMS[name].trainer, ALGORITHMS[name].config)
    )
    assert ALGORITHMS[name].summary and ALGORITHMS[name].curves


def test_another_package_adds_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    actual = registry(tmp_path, monkeypatch, kto="plugin_of_others:KTO")
    assert list(actual) == [*ALGORITHMS.builtin, "kto"] and len(actual) == len(ALGORITHMS.builtin) + 1
    kto = actual["kto"]
    assert kto == Algorithm("kto", "my_kto:Trainer", "my_kto:Config", "prompts", ("reward",), "train with KTO")
    with pytest.raises(errors.UserError, match="algorithm kto: my_kto:Trainer can't be imported: No module named"):
        kto.load()


def test_a_name_of_ours_stays_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    actual = registry(tmp_path, monkeypatch, dpo=OTHER)
    assert list(actual) == list(ALGORITHMS.builtin)
    assert actual["dpo"] is ALGORITHMS["dpo"]


def test_a_broken_one_is_named_and_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    actual = registry(tmp_path, monkeypatch, kto=OTHER, sac="plugin_of_others:KTO")
    with pytest.raises(errors.UserError, match=f"algorithm kto: {OTHER} can't be imported"):
        actual["kto"]
    with pytest.raises(
        errors.UserError, match=r"algorithm sac: plugin_of_others:KTO is not an .*Algorithm of that name"
    ):
        actual["sac"]
    assert actual["dpo"].name == "dpo"


def test_the_command_lists_them(tmp_path: Path):
    install(tmp_path, sac="plugin_of_others:SAC", kto=OTHER)
    code = "from hf_align.cli.main import main; main(['algorithms', '--json']); print('---'); main(['algorithms'])"
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True)
    printed, shown = ran.stdout.split("---\n")
    listed = {each.pop("name"): each for each in json.loads(printed)}
    assert list(listed) == [*ALGORITHMS.builtin, "sac", "kto"]
    assert (listed["ppo"]["rows"], listed["ppo"]["needs"]) == ("prompts", ["reference", "reward", "value"])
    assert "can't be imported" in listed["kto"]["error"]
    assert "train a policy on a reward with PPO" in shown and "algorithm kto: " in shown
