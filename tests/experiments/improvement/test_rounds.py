"""Whole runs on a tiny policy."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hf_align.errors import UserError
from hf_align.evaluation.win_rate import wins_of
from hf_align.experiments.improvement.rounds import Improvement
from hf_align.model_cards import load_facts
from hf_align.models.loading import load_policy
from hf_align.progress import Silent
from tests.experiments.improvement.runs import SMALL, Killed, KilledAtSeams, prepared, results_of, write_inputs


@pytest.fixture(autouse=True)
def in_a_new_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    write_inputs()


def stored(number: int, name: str) -> Any:
    return json.loads(Path(f"out/round-{number}/{name}.json").read_text())


def letters(text: str) -> int:
    return sum(each.isascii() and each.isalpha() for each in text)


def run(model: str, progress: Any = None, **values: Any) -> Improvement:
    return prepared(model, **values).execute(progress or Silent())


def kills_until_done(model: str, every: int, **values: Any) -> int:
    """Run, end it at each n-th seam, and go on, until it is done; the number of kills."""
    seen: set[tuple[str, str, int]] = set()
    for kills in range(1000):
        try:
            run(model, KilledAtSeams(every, seen), **values)
            return kills
        except Killed:
            continue
    raise AssertionError("it never ends")


def check_the_same(whole: dict[str, bytes], again: dict[str, bytes]) -> None:
    assert again.keys() == whole.keys()
    assert [name for name in whole if whole[name] != again[name]] == []


def test_killed_at_any_seam_a_run_goes_on_to_the_same_data_and_weights(tiny_model_dir: str) -> None:
    seams: set[tuple[str, str, int]] = set()
    result = run(tiny_model_dir, KilledAtSeams(0, seams), votes="votes.jsonl")
    check_a_run_of_two_rounds(result)
    whole = results_of("out")
    shutil.rmtree("out")
    assert kills_until_done(tiny_model_dir, len(seams) // 3, votes="votes.jsonl") >= 3
    check_the_same(whole, results_of("out"))


def check_a_run_of_two_rounds(result: Improvement) -> None:
    content = result.content
    for number in (1, 2):
        entry, samples, pairs = content["rounds"][number - 1], stored(number, "samples"), stored(number, "pairs")
        assert len(samples["fresh"]) + len(samples["anchored"]) == 6 and len(samples["texts"][0]) == 3
        for pair in pairs["pairs"]:
            assert letters(pair["chosen"]) > letters(pair["rejected"]) and pair["margin"] > 0
        written = dict(zip([*samples["fresh"], *samples["anchored"]], samples["texts"], strict=True))
        assert all(pair["chosen"] in written[pair["row"]] for pair in pairs["pairs"])
        first = {pair["row"]: pair["rejected"] for pair in stored(1, "pairs")["pairs"]}
        for pair in pairs["pairs"]:
            assert pair["rejected"] == first[pair["row"]] if pair["anchored"] else pair["row"] in samples["fresh"]
        new, start = (stored(each, "held_out")["texts"] for each in (number, 0))
        expected = np.mean(wins_of([letters(text) for text in new], [letters(text) for text in start]))
        assert entry["trained"]["rows"] == entry["pairs"]["pairs"] == len(pairs["pairs"])
        assert entry["trained"]["steps"] == -(-len(pairs["pairs"]) // 4)
        assert entry["policy"]["kl"]["responses"] == 12 and entry["policy"]["kl"]["k3"] > 0
        assert stored(number, "evaluation")["training"]["start"]["win_rate"] == pytest.approx(expected)
        assert entry["votes"]["accuracy"] == 1, "letters are preferred to digits"
    assert len(stored(2, "samples")["anchored"]) == min(3, len(stored(1, "pairs")["pairs"]))
    assert content["start"]["policy"]["kl"] == {} and content["stopped"] == {"round": 2, "reason": "rounds"}
    assert "<svg" in Path("out/report.html").read_text() and "win rate" in Path("out/report.html").read_text()
    assert not list(Path("out").glob("round-*/parts")) and not list(Path("out").glob("round-*/checkpoints"))


def test_the_best_policy_is_left_with_a_card_and_only_the_same_recipe_goes_on(tiny_model_dir: str) -> None:
    values: dict[str, Any] = {"rounds": 1, "false_stop": 0.01, "lora": None, "held_out_judge": "score.py:lower"}
    result = run(tiny_model_dir, **values, learning_rate=1e-3, reference="start")
    best = result.content["rounds"][0]["held_out"]["best"]["win_rate"] > 0.5
    assert (result.policy is not None) is best is (result.content["best"] == 1)
    if result.policy is not None:  # which the seed decides
        card = (result.policy / "README.md").read_text()
        facts = load_facts(result.policy)
        assert "How its pairs were made" in card and "no training saw" in card and facts is not None
        assert (Path("out/round-1/policy/model.safetensors").read_bytes()) == (
            result.policy / "model.safetensors"
        ).read_bytes()
        load_policy(result.policy)
    assert "held-out" in str(result)
    with pytest.raises(UserError, match=r"has learning_rate 0\.001, and the recipe 0\.01"):
        run(tiny_model_dir, **values, reference="start")
    Path("other").mkdir()
    Path("other/notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds no self-improvement"):
        run(tiny_model_dir, **values, output_dir="other")


def test_a_judge_without_differences_ends_the_run_before_anything_is_trained(tiny_model_dir: str) -> None:
    result = run(tiny_model_dir, judge="score.py:same")
    assert result.content["stopped"] == {"round": 1, "reason": "no_pairs"} and result.content["best"] == 0
    assert result.policy is None and not Path("out/policy").exists() and not Path("out/round-1/policy").exists()
    assert "different scores" in str(result) and result.content["rounds"][0]["judging"]["tie_share"] == 1


@pytest.mark.parametrize("name", ["train_dataset", "eval_dataset", "votes"])
def test_a_run_does_not_go_on_with_other_rows_in_the_same_files(name: str, tiny_model_dir: str) -> None:
    values = {"train_dataset": "prompts.jsonl", "eval_dataset": "held_out.jsonl", "votes": "votes.jsonl"}
    for _ in range(2):
        prepared(tiny_model_dir, **values).job(Silent()).open()  # the same rows
    rows = Path(values[name])
    rows.write_text(rows.read_text().replace(" 1", " one"))
    with pytest.raises(UserError, match=f"^output_dir: {name} has other rows than when the run in out began"):
        prepared(tiny_model_dir, **values).job(Silent()).open()


@pytest.mark.parametrize(
    ("name", "file"), [("judge", "score.py"), ("judge", "question.txt"), ("held_out_judge", "other.py")]
)
def test_a_run_goes_on_only_by_the_same_files_of_judges(name: str, file: str, tiny_model_dir: str) -> None:
    for copy in ("other.py", "question.txt"):
        Path(copy).write_bytes(Path("score.py").read_bytes())
    Path("question.txt").write_text("{prompt} {first} {second}")
    asked = {"model": tiny_model_dir, "prompt": "question.txt"}
    values = {"judge": asked if file == "question.txt" else "score.py:letters", "held_out_judge": "other.py:lower"}
    for _ in range(2):
        prepared(tiny_model_dir, **values).job(Silent()).open()  # the same files
    with Path(file).open("a") as changed:
        changed.write("\n")
    with pytest.raises(UserError, match=f"^output_dir: {name} has other files than when the run in out began"):
        prepared(tiny_model_dir, **values).job(Silent()).open()


@pytest.mark.slow
def test_killed_at_each_seam_a_run_of_full_weights_goes_on_to_the_same_data_and_weights(tiny_model_dir: str) -> None:
    values: dict[str, Any] = {"lora": None, "learning_rate": 1e-3, "false_stop": 0.01, "loss_type": "ipo"}
    values |= {"judge": "self", "held_out_judge": "score.py:lower", "votes": "votes.jsonl", "reference": "start"}
    seams: set[tuple[str, str, int]] = set()
    run(tiny_model_dir, KilledAtSeams(0, seams), **values)
    whole = results_of("out")
    shutil.rmtree("out")
    assert kills_until_done(tiny_model_dir, 1, **values) == len(seams) >= 20
    check_the_same(whole, results_of("out"))


@pytest.mark.slow
def test_a_process_killed_by_the_system_goes_on_to_the_same_data_and_weights(tiny_model_dir: str) -> None:
    recipe = {"model": tiny_model_dir, **SMALL, "false_stop": 0.01}
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "hf_align.cli", "improve", "--config", "recipe.yaml", "--output_dir"]
    subprocess.run([*command, "whole"], check=True, capture_output=True, timeout=250)
    for place in ("round-1/parts/*", "round-1/checkpoints/checkpoint-1", "round-2/samples.json"):
        process = subprocess.Popen([*command, "out"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not list(Path("out").glob(place)):
            time.sleep(0.002)
        assert process.poll() is None, f"it ended before there was {place}"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, "out"], check=True, capture_output=True, timeout=250)
    check_the_same(results_of("whole"), results_of("out"))
