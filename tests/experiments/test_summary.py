"""Output of a quickstart, from made-up stage records."""

import json
from pathlib import Path

import pytest

from hf_align.cli.commands.quickstart import show
from hf_align.cli.console import Screen
from hf_align.experiments.quickstart.job import HISTORY, POLICIES, SAMPLES, TRAINED, Job
from hf_align.experiments.quickstart.summary import write_summary
from hf_align.experiments.quickstart.workspace import Workspace
from hf_align.files import write_json
from hf_align.progress import Silent
from tests.report import synthetic


def test_metrics_report_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_up = synthetic.metrics()
    job = Job(Workspace(tmp_path), "smoke", None, 3, Silent())
    for stage, history in synthetic.histories().items():
        write_json(job.folder(stage) / HISTORY, history)
    write_json(job.folder("evaluation/policies") / SAMPLES, synthetic.samples())
    results = {
        "base": {"model": "m", "seconds": 1.0},
        **{
            name: {"seconds": 2.0, "resumed": name == "dpo", "rows": 8, "held_out": made_up["held_out"][name]}
            for name in TRAINED
        },
        "evaluation/reward": {"seconds": 3.0, "report": made_up["reward_model"]},
        "evaluation/policies": {"seconds": 4.0, "report": made_up["policies"]},
    }
    results["ppo"] |= {"episodes": 16, "course": {"rollouts": []}}
    metrics = write_summary(job, results, "hf-align quickstart --seed 3")
    assert json.loads((tmp_path / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert (metrics["settings"]["seed"], metrics["resumed"]) == (3, ["dpo"])
    assert metrics["versions"]["torch"] and sum(metrics["seconds"].values()) == 16.0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "DPO writes more positively" in page and "torch" in page

    show(Screen(), metrics)
    lines = capsys.readouterr().out.splitlines()
    people = next(line for line in lines if line.startswith("all"))
    assert people.split() == ["all", "0.78", "(0.82)", "0.51", "(0.70)", "0.88", "(0.89)"]
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(POLICIES)}
    assert rows["base"] == ["+0.18", "+0.72", "0.81"]
    assert rows["dpo"] == ["+0.41", "+0.23", "[+0.17,", "+0.29]", "+1.64", "0.81", "0.74"]
    assert rows["ppo"][-1] == "0.81", "PPO ranks no pairs"
