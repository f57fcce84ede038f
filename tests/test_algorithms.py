"""The registry, and algorithms that other packages add to it."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest

from hf_align import algorithms, errors
from hf_align.algorithms import ALGORITHMS, Algorithm, Algorithms
from hf_align.cli.main import main

KTO = Algorithm("kto", "my_kto:Trainer", "my_kto:Config", "prompts", ("reward",), "train with KTO")
OTHER = "hf_align.no_such_module:KTO"


def registry(monkeypatch: pytest.MonkeyPatch, *entries: object) -> Algorithms:
    """A registry beside which these entry points are installed."""
    monkeypatch.setattr(algorithms, "entry_points", lambda group: entries if group == "hf_align.algorithms" else ())
    return Algorithms(*ALGORITHMS.builtin.values())


@pytest.mark.parametrize("name", ALGORITHMS.builtin)
def test_trainer_config_and_curves_are_there(name: str):
    trainer, config = ALGORITHMS[name].load()
    assert (trainer.__name__, config.__name__) == tuple(
        place.partition(":")[2] for place in (ALGORITHMS[name].trainer, ALGORITHMS[name].config)
    )
    assert ALGORITHMS[name].summary and ALGORITHMS[name].curves


def test_another_package_adds_one(monkeypatch: pytest.MonkeyPatch):
    found = registry(monkeypatch, SimpleNamespace(name="kto", value="my_kto:KTO", load=lambda: KTO))
    assert list(found) == [*ALGORITHMS.builtin, "kto"] and len(found) == len(ALGORITHMS.builtin) + 1
    assert found["kto"] is KTO
    with pytest.raises(errors.UserError, match="algorithm kto: my_kto:Trainer can't be imported: No module named"):
        KTO.load()


def test_a_name_of_ours_stays_ours(monkeypatch: pytest.MonkeyPatch):
    found = registry(monkeypatch, EntryPoint("dpo", OTHER, algorithms.ENTRY_POINTS))
    assert list(found) == list(ALGORITHMS.builtin)
    assert found["dpo"] is ALGORITHMS["dpo"]


def test_a_broken_one_is_named_and_stops_no_other(monkeypatch: pytest.MonkeyPatch):
    wrong = SimpleNamespace(name="sac", value="my_sac:SAC", load=lambda: KTO)
    found = registry(monkeypatch, EntryPoint("kto", OTHER, algorithms.ENTRY_POINTS), wrong)
    with pytest.raises(errors.UserError, match=f"algorithm kto: {OTHER} can't be imported"):
        found["kto"]
    with pytest.raises(errors.UserError, match=r"algorithm sac: my_sac:SAC is not an .*Algorithm of that name"):
        found["sac"]
    assert found["dpo"].name == "dpo"


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    broken = EntryPoint("kto", OTHER, algorithms.ENTRY_POINTS)
    found = registry(monkeypatch, SimpleNamespace(name="sac", value="", load=lambda: Algorithm("sac", "", "")), broken)
    monkeypatch.setattr("hf_align.cli.commands.algorithms.ALGORITHMS", found)
    assert main(["algorithms", "--json"]) == 0
    listed = {each.pop("name"): each for each in json.loads(capsys.readouterr().out)}
    assert list(listed) == ["sft", "reward", "dpo", "ipo", "ppo", "sac", "kto"]
    assert (listed["ppo"]["rows"], listed["ppo"]["needs"]) == ("prompts", ["reference", "reward", "value"])
    assert "can't be imported" in listed["kto"]["error"]
    assert main(["algorithms"]) == 0
    shown = capsys.readouterr().out
    assert "train a policy on a reward with PPO" in shown and "algorithm kto: " in shown
