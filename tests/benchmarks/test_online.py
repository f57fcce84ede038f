import json

import pytest
from datasets import Dataset

from benchmarks.online import FIGURES, METHODS, SAMPLES, compare, main, offline_pairs, read_runs, run, summarise, table
from hf_align.errors import UserError


def finished(folder, method, seed, judge):
    """A run whose figures are all the judge's."""
    place = folder / str(seed) / method
    place.mkdir(parents=True)
    entry = {"method": method, "seed": seed, "samples": 64, "training_seconds": 50.0}
    (place / "result.json").write_text(json.dumps({**entry, "figures": dict.fromkeys(FIGURES, judge)}))


def test_gains_are_over_the_base_of_the_same_seed_and_intervals_over_prompts(tmp_path, capsys):
    finished(tmp_path, "base", 0, [0.0, 0.2, 0.4, 0.2])
    finished(tmp_path, "base", 1, [0.5, 0.5, 0.5, 0.5])
    finished(tmp_path, "ppo", 0, [0.3, 0.5, 0.7, 0.5])
    finished(tmp_path, "ppo", 1, [0.6, 0.6, 0.6, 0.6])
    finished(tmp_path, "online-dpo", 2, [1.0, 1.0, 1.0, 1.0])  # its base hasn't finished
    summary = summarise(read_runs(tmp_path))
    assert list(summary) == ["base", "ppo"] and set(summary) <= set(METHODS)
    gain = summary["ppo"]["gains"]["judge"]
    assert [round(each, 6) for each in (gain["mean"], *gain["by_seed"])] == [0.2, 0.3, 0.1]
    low, high = gain["interval"]
    assert 0.1 <= low < 0.2 < high <= 0.3
    assert summary["base"]["gains"]["judge"]["mean"] == 0 and summary["ppo"]["training_seconds"] == [50, 50]
    main(["table", "--out", str(tmp_path), "--save", str(tmp_path / "figures.json")])
    shown = capsys.readouterr().out
    assert shown.strip() == table(summary) and "| ppo | 64 | 2 | 0.200 [" in shown and "| base | 0 | 2 |" in shown
    assert json.loads((tmp_path / "figures.json").read_text())["methods"] == summary


def test_two_methods_are_compared_prompt_by_prompt_over_the_seeds_of_both(tmp_path, capsys):
    finished(tmp_path, "online-dpo", 0, [0.4, 0.1, 0.4, 0.1])
    finished(tmp_path, "online-dpo", 1, [0.5, 0.5, 0.5, 0.5])
    finished(tmp_path, "ppo", 0, [0.2, 0.3, 0.2, 0.3])
    finished(tmp_path, "ppo", 1, [0.1, 0.1, 0.1, 0.1])
    finished(tmp_path, "base", 2, [0.0, 0.0, 0.0, 0.0])
    differences = compare(read_runs(tmp_path), "online-dpo")
    assert list(differences) == ["ppo"] and differences["ppo"]["seeds"] == [0, 1]
    judge = differences["ppo"]["judge"]
    assert [round(each, 6) for each in (judge["mean"], *judge["by_seed"])] == [0.2, 0.0, 0.4]
    low, high = judge["interval"]
    assert 0 <= low < 0.2 < high <= 0.4
    main(["table", "--out", str(tmp_path)])
    assert "| ppo | 2 | 0.200 [" in capsys.readouterr().out


def test_offline_pairs_are_the_best_and_the_worst_of_what_was_sampled(tmp_path):
    scores = [[0.0, 2.0, -1.0, 1.0], [3.0, 3.0, 3.0, 3.0]]
    rows = [{"text": f"{score} {place}", "score": score} for group in scores for place, score in enumerate(group)]
    (tmp_path / SAMPLES).write_text(json.dumps(rows))
    prompts = Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in ("one", "two")])
    [pair] = offline_pairs("base", "reward", tmp_path, prompts, 0).to_list()
    assert pair["prompt"][0]["content"] == "one"
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("2.0 1", "-1.0 2")


def test_too_many_prompts_are_refused_before_a_policy_is_trained(tmp_path):
    with pytest.raises(UserError, match="n must be in 1"):
        run("base", "reward", tmp_path, "ppo", 0, 32, 10_000)
    assert not list(tmp_path.iterdir())
