"""Both sides on a toy model, in this process."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ours, trl_peer
from benchmarks.cli import main
from benchmarks.commands import prepare_ppo, write_rows
from benchmarks.floor import ppo_layouts, preference_layouts, step_gemms
from benchmarks.session import compare
from benchmarks.spec import TRL_VERSIONS, Spec
from benchmarks.workloads import Workload, preference_rows
from hf_align.models.sources import load_tokenizer
from tests.tiny import save_tiny

SHORT = Workload(6, 4)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny(tmp_path_factory.mktemp("model"))


def spec_of(task: Any, model: str, folder: Path, **changes: Any) -> Spec:
    spec = Spec(task=task, side="ours", model=model, rows=str(folder / "rows.json"), out=str(folder / "out"), batch=2)
    spec = replace(spec, steps=1, max_new_tokens=3, ppo_epochs=2, **changes)
    return prepare_ppo(spec, folder) if task == "ppo" else spec


@pytest.mark.skipif(version("trl") != TRL_VERSIONS["dpo"], reason="compares with that version of TRL")
@pytest.mark.parametrize(
    ("task", "settings"),
    [
        ("dpo", {}),
        ("reward", {"full": True}),
        ("dpo", {"checkpointing": True}),
        ("reward", {"dtype": "bf16"}),
        *(
            pytest.param(*case, marks=pytest.mark.slow)  # each setting by the other task
            for case in (
                *(("reward", {}), ("dpo", {"full": True})),
                *(("reward", {"checkpointing": True}), ("dpo", {"dtype": "bf16"})),
            )
        ),
    ],
    ids=str,
)
def test_both_sides_compute_the_same_first_steps(task: str, settings: dict[str, Any], model: str, tmp_path: Path):
    spec = spec_of(task, model, tmp_path, **settings)
    write_rows(spec, preference_rows(SHORT, spec.batch * spec.total_steps))
    mine, theirs = ours.train(spec), trl_peer.train(replace(spec, side="trl"))
    check = compare(mine["first"], theirs["first"], spec.dtype)
    assert {"loss", "grad_norm"} < check.keys()
    assert all(row["same"] for row in check.values()), check
    assert mine["losses"] == pytest.approx(theirs["losses"], rel=5e-2 if spec.dtype == "bf16" else 1e-3)
    assert len(mine["seconds"]) == len(theirs["seconds"]) == spec.total_steps
    assert not mine["separate_layout"]


def test_the_peers_first_rollout_is_ours_too(model: str, tmp_path: Path):
    spec = spec_of("ppo", model, tmp_path)
    tokenizer, rows = load_tokenizer(model), json.loads(Path(spec.rows).read_text())
    prompts = [
        tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False) for row in rows
    ]
    recorded = [{"prompt": ids, "response": [65, 66, 67 + n], "score": n - 0.5} for n, ids in enumerate(prompts)]
    Path(str(spec.responses)).parent.mkdir(parents=True)
    Path(str(spec.responses)).write_text(json.dumps(recorded))
    result = ours.train(spec)
    assert result["first"]["objective/scores"] == pytest.approx(0)
    assert [len(row) for row in result["first"]["old_logps"]] == [3, 3]
    assert result["first"]["old_logps"] == result["first"]["ref_logps"]
    assert len(result["losses"]) == spec.total_steps * spec.ppo_epochs
    assert len(result["seconds"]) == spec.total_steps


def test_layouts_count_prompts_once(model: str, tmp_path: Path):
    spec = spec_of("dpo", model, tmp_path)
    rows = preference_rows(SHORT, 4)
    write_rows(spec, rows)
    layouts = preference_layouts(spec, load_tokenizer(model))
    assert len(layouts) == 2
    responses = sum(len(row[side].encode()) + 1 for row in rows[:2] for side in ("chosen", "rejected"))  # EOS
    assert layouts[0].responses == responses
    assert layouts[0].tokens == responses + sum(len(row["prompt"].encode()) for row in rows[:2])
    assert layouts[0].pairs < layouts[0].rows * layouts[0].width ** 2 / 2
    assert step_gemms(spec)[1] == layouts[1].tokens  # the first step is warm-up


def test_ppo_layouts(model: str, tmp_path: Path):
    spec = spec_of("ppo", model, tmp_path)
    prompts, layout = ppo_layouts(spec, load_tokenizer(model))
    assert layout.tokens == prompts.tokens + 2 * 3
    assert (layout.responses, prompts.responses) == (6, 2)


@pytest.mark.slow
def test_a_run_of_our_side_from_the_command(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    places = ["--model", model, "--work", str(tmp_path / "work"), "--out", str(tmp_path / "results")]
    assert main(["ppo", *places, "--runs", "1", "--steps", "1", "--batch", "2", "--new-tokens", "3", "--profile"]) == 0
    result = json.loads((tmp_path / "results" / "ppo-lora-fp32-alone.json").read_text())
    assert result["ours"]["episodes_per_second"] > 0 and result["ours"]["peak_bytes"] > 2**27
    assert sum(result["profile"].values()) > 0 and result["profile"]["matrix products"] > 0
    assert result["floor"]["seconds"] > 0 and "peer" not in result
    assert str(tmp_path) not in json.dumps(result)
    assert "ppo-lora-fp32" in (tmp_path / "results" / "README.md").read_text()
    assert "run 1 of 1, ours" in capsys.readouterr().out


@pytest.mark.slow
def test_the_gpu_benchmark_at_toy_size(model: str, tmp_path: Path):
    places = ["--model", model, "--work", str(tmp_path / "work"), "--out", str(tmp_path / "results")]
    # Not bf16: some processors take a hundred times as long for it.
    small = ["--dtype", "fp32", "--batch", "2", "--runs", "1", "--steps", "1"]
    assert main(["gpu", "--sizes", "toy", *places, *small]) == 0
    names = {path.stem for path in (tmp_path / "results").glob("*.json")}
    beside_the_peer = {"gpu-toy-dpo-chat-fp32", "gpu-toy-reward-chat-fp32", "gpu-toy-ppo-fp32"}
    assert names == {*beside_the_peer, "gpu-toy-ppo-8bit", "gpu-toy-ppo-4bit"}


@pytest.mark.slow
def test_parts_at_toy_size(tmp_path: Path):
    assert main(["parts", "--size", "toy", "--repeats", "1", "--out", str(tmp_path / "results")]) == 0
    result = json.loads((tmp_path / "results" / "parts-toy-cpu.json").read_text())
    assert {"chat: branch, sdpa", "new widths: separate, sdpa"} < result["attention"].keys()
    measured = [figures for part in ("attention", "patches", "sampling") for figures in result[part].values()]
    assert all(figures["seconds"] > 0 for figures in measured)
