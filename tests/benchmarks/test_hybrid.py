import json

import pytest

from benchmarks.hybrid import METHODS, MULTIPLE, STAGES, main, options_of, rows_of, stages_of
from benchmarks.online import NUM_SAMPLES, PASSES
from hf_align.trainers import DPOConfig, PPOConfig
from tests.benchmarks.test_online import finished


def test_a_hybrid_and_single_algorithms_take_as_many_steps_on_as_many_rows(tmp_path):
    rows = 2 * MULTIPLE
    alone = {name: options_of(name, tmp_path, rows, 0) for name in STAGES}
    steps = {
        "dpo": DPOConfig(**alone["dpo"]).max_steps,
        "ppo": PPOConfig(**alone["ppo"]).max_steps,
        "ipo": alone["ipo"]["max_steps"],
    }
    assert set(steps.values()) == {PASSES * rows // 16}
    stages = stages_of("hybrid", tmp_path, rows, 0)
    assert [each.algorithm for each in stages] == [*STAGES]
    dpo, ppo, ipo = stages
    taken = [dpo.args["max_steps"], PPOConfig("out", **ppo.args).max_steps, ipo.args["max_steps"]]
    assert sum(taken) == steps["dpo"] and len(set(taken)) == 1
    assert len(dpo.train_dataset) + NUM_SAMPLES * len(ppo.train_dataset) + len(ipo.train_dataset) == rows
    every = rows_of("dpo", rows, 0)
    assert dpo.train_dataset[:] == every[: rows // 3] and ipo.train_dataset[:] == every[2 * rows // 3 :]
    assert {each.reference for each in stages} == {"start"}
    assert {each.reference for each in stages_of("hybrid-previous", tmp_path, rows, 0)} == {"previous"}


def test_the_table_compares_the_hybrid_prompt_by_prompt(tmp_path, capsys):
    finished(tmp_path, "base", 0, [0.0, 0.2, 0.4, 0.2])
    finished(tmp_path, "ppo", 0, [0.1, 0.3, 0.5, 0.3])
    finished(tmp_path, "hybrid", 0, [0.2, 0.4, 0.6, 0.4])
    main(["table", "--out", str(tmp_path), "--save", str(tmp_path / "figures.json")])
    shown = capsys.readouterr().out
    assert "| hybrid | 64 | 1 | 0.200 [0.200, 0.200]" in shown and "| hybrid minus |" in shown
    saved = json.loads((tmp_path / "figures.json").read_text())
    assert list(saved["methods"]) == ["base", "ppo", "hybrid"] and set(saved["methods"]) <= set(METHODS)
    assert saved["hybrid minus"]["ppo"]["judge"]["mean"] == pytest.approx(0.1)


def test_rows_that_stages_can_not_share_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["run", "--base", "b", "--reward", "r", "--out", str(tmp_path), "--method", "dpo", "--samples", "100"])
    assert f"give a multiple of {MULTIPLE}" in capsys.readouterr().err
