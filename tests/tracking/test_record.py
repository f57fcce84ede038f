"""A run's record: what was written is read, after kills, resumes and failing disks too."""

from __future__ import annotations

import math
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hf_align.errors import UserError
from hf_align.tracking import Checkpoint, Run, RunRecord, best_checkpoint, find_records, read_record, read_runs
from hf_align.tracking.directions import is_greater_better
from hf_align.tracking.schema import FILE, VERSION

WRITER = """
import sys
from hf_align.tracking import RunRecord
session = RunRecord(sys.argv[1], "shared").session(sys.argv[2], prefix="dpo")
for step in range(1, 10**9):
    session.log(step, {"loss": float(step), "margin": -1.0})
    print(step, flush=True)
"""


def values(run: Run, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in run.metrics(name)]


def only(folder: Path) -> Run:
    [run] = read_record(folder)
    return run


def test_what_is_written_is_read(tmp_path: Path):
    data = {"train": {"rows": 2, "fingerprint": "ab"}}
    with RunRecord.start(
        tmp_path, "dpo", config={"lr": 0.1, "hub_token": "x"}, data=data, base={"name": "m"}
    ) as record:
        session = record.session(prefix="dpo", facts={"host": {"device": "cpu"}})
        session.log(1, {"loss": 0.7, "n": 3, "flag": True, "text": "no number"})
        session.log(2, {"loss": math.nan, "big": math.inf, "small": -math.inf})
        session.end("finished")
    run = only(tmp_path)
    assert (run.algorithm, run.status, run.steps, run.folder) == ("dpo", "finished", 2, tmp_path)
    assert (run.config, run.data, run.base) == ({"lr": 0.1, "hub_token": "***"}, data, {"name": "m"})
    assert run.names == ["dpo/loss", "dpo/n", "dpo/flag", "dpo/big", "dpo/small"]
    assert values(run, "loss")[0] == values(run, "dpo/loss")[0] == (1, 0.7) and math.isnan(run.metrics("loss")[1].value)
    assert [values(run, name) for name in ("n", "flag", "big", "small")] == [
        *([(1, 3.0)], [(1, 1.0)], [(2, math.inf)], [(2, -math.inf)])
    ]
    assert run.started <= run.metrics("loss")[0].time <= (run.ended or 0) <= time.time()
    [session] = run.sessions
    assert (session.status, session.facts["host"]["device"]) == ("finished", "cpu")
    assert {"versions", "git", "command", "host"} <= set(session.facts)
    assert [file.name for file in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("error", "status"), [(None, "finished"), (KeyboardInterrupt, "stopped"), (ValueError, "failed")]
)
def test_how_a_run_ended(error: type[BaseException] | None, status: str, tmp_path: Path):
    def run() -> None:
        with RunRecord.start(tmp_path, "hybrid"):
            if error is not None:
                raise error

    if error is None:
        run()
    else:
        with pytest.raises(error):
            run()
    assert only(tmp_path).status == status


def test_a_resumed_run_has_each_step_once(tmp_path: Path):
    """1 to 5, back to 3, then to 4: what was gone behind is gone; at the step itself the last value counts."""
    forks = [(0, [1, 2, 3, 4, 5]), (3, [3, 4, 5, 6]), (4, [5])]
    for number, (from_step, steps) in enumerate(forks):
        record = RunRecord.start(tmp_path, "dpo", resume=number > 0)
        session = record.session(prefix="dpo", from_step=from_step)
        for step in steps:
            session.log(step, {"loss": 10 * number + step})
        record.close()
    run = only(tmp_path)
    assert values(run, "loss") == [(1, 1), (2, 2), (3, 13), (4, 14), (5, 25)]
    assert (run.status, len(run.sessions)) == ("unfinished", 3)


def test_stages_have_steps_of_their_own(tmp_path: Path):
    record = RunRecord.start(tmp_path, "hybrid")
    first, second = record.session("1-dpo", prefix="dpo"), record.session("2-ppo", prefix="ppo")
    second.log(1, {"loss": 3.0, "objective/kl": 0.1})
    first.log(1, {"loss": 1.0})
    first.log(2, {"loss": 2.0})
    again = record.session("1-dpo", prefix="dpo", from_step=1)
    again.log(2, {"loss": 2.5})
    record.close()
    run = only(tmp_path)
    assert [(point.stage, *point[:2]) for point in run.metrics("loss")] == [
        *(("1-dpo", 1, 1.0), ("1-dpo", 2, 2.5), ("2-ppo", 1, 3.0))
    ]
    assert values(run, "ppo/loss") == [(1, 3.0)] and values(run, "objective/kl") == [(1, 0.1)]
    assert run.steps == 3


def test_a_folder_used_again_has_two_runs(tmp_path: Path):
    for _ in range(2):
        RunRecord.start(tmp_path, "dpo").end("finished")
    first, second = read_record(tmp_path)
    assert first.id != second.id
    resumed = RunRecord.start(tmp_path, "dpo", resume=True)
    assert resumed.id == second.id and RunRecord.start(tmp_path, "ppo", resume=True).id not in (first.id, second.id)


def saved(record: RunRecord, step: int, reward: Path, **metrics: float) -> Path:
    folder = record.folder / f"checkpoint-{step}"
    folder.mkdir(exist_ok=True)
    session = record.session(prefix="ppo", from_step=max(0, step - 1))
    session.log(step, metrics)
    session.checkpoint(folder, step, {"policy": str(folder), "value": str(folder), "reward": str(reward)})
    return folder


def test_the_best_checkpoint_is_one_that_is_left(tmp_path: Path):
    reward = tmp_path / "reward"
    record = RunRecord.start(tmp_path / "run", "ppo")
    folders = [saved(record, step, reward, eval_reward=value, eval_kl=step) for step, value in ((1, 0.3), (2, 0.9))]
    folders.append(saved(record, 3, reward, eval_reward=math.nan))
    folders.append(saved(record, 4, reward, eval_reward=0.2))
    best = best_checkpoint(record.folder, "eval_reward")
    assert (best.folder, best.step, best.metrics["ppo/eval_reward"]) == (folders[1], 2, 0.9)
    assert best.parts == {"policy": str(folders[1]), "value": str(folders[1]), "reward": str(reward)}
    assert best_checkpoint(record.folder, "ppo/eval_reward", greater_is_better=False).step == 4
    folders[1].rmdir()
    assert best_checkpoint(record.folder, "eval_reward").step == 1
    saved(record, 5, reward, eval_reward=0.1)
    assert [each.step for each in only(record.folder).checkpoints if each.removed] == [2]
    with pytest.raises(UserError, match=r"'eval_kl': whether more or less of it is better isn't known"):
        best_checkpoint(record.folder, "eval_kl")
    with pytest.raises(UserError, match=r"eval_accuracy was never logged; there is ppo/eval_reward, ppo/eval_kl"):
        best_checkpoint(record.folder, "eval_accuracy")
    record.session(prefix="ppo", from_step=5).log(9, {"eval_margin": 1.0})
    with pytest.raises(UserError, match=r"checkpoints of steps 1, 3, 4, 5; measured at 9"):
        best_checkpoint(record.folder, "eval_margin")
    record.close()


def test_losses_of_several_algorithms_are_not_compared(tmp_path: Path):
    with RunRecord.start(tmp_path, "hybrid") as record:
        for prefix, loss in (("dpo", 0.5), ("ppo", -0.1)):
            folder = tmp_path / f"stage-{prefix}" / "policy"
            folder.mkdir(parents=True)
            session = record.session(folder.parent.name, prefix=prefix)
            session.log(1, {"loss": loss})
            session.checkpoint(folder, 1, {"policy": str(folder)})
    for best in (lambda name: best_checkpoint(tmp_path, name), lambda name: only(tmp_path).best(name)):
        with pytest.raises(UserError, match=r"'loss' is one of several algorithms of .*; give dpo/loss or ppo/loss"):
            best("loss")
        found: Any = best("dpo/loss")
        assert found.step == 1
    assert best_checkpoint(tmp_path, "dpo/loss").stage == "stage-dpo"
    assert [point.value for point in only(tmp_path).metrics("loss")] == [0.5, -0.1]


def test_a_checkpoint_has_the_metrics_of_its_own_weights(tmp_path: Path):
    """Step 2 was measured, then trained again from step 1: those are other weights."""
    record = RunRecord.start(tmp_path, "dpo")
    first = record.session(prefix="dpo")
    first.log(1, {"eval_loss": 1.0})
    first.checkpoint(tmp_path / "checkpoint-1", 1, {})
    first.log(2, {"eval_loss": 2.0})
    first.checkpoint(tmp_path / "checkpoint-2", 2, {})
    second = record.session(prefix="dpo", from_step=1)
    second.log(1, {"eval_accuracy": 0.5})
    third = record.session(prefix="dpo", from_step=1)
    third.log(2, {"eval_loss": 3.0})
    record.close()
    by_step: dict[int, Checkpoint] = {each.step: each for each in only(tmp_path).checkpoints}
    assert by_step[1].metrics == {"dpo/eval_loss": 1.0, "dpo/eval_accuracy": 0.5}
    assert by_step[2].metrics == {"dpo/eval_loss": 2.0}


@pytest.mark.parametrize("writers", [1, 3])
def test_a_killed_process_loses_no_row(writers: int, tmp_path: Path):
    RunRecord.start(tmp_path, "dpo").close()
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE runs SET id = 'shared'")
    connection.close()
    started = [
        subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, f"stage-{number}"], stdout=subprocess.PIPE, text=True)
        for number in range(writers)
    ]
    for number, process in enumerate(started):
        assert process.stdout is not None
        for _ in range(40 + 20 * number):
            process.stdout.readline()
        process.kill()
    said = {f"stage-{number}": process.communicate()[0] for number, process in enumerate(started)}
    run = only(tmp_path)
    for number in range(writers):
        stage = f"stage-{number}"
        steps = [point.step for point in run.metrics("loss") if point.stage == stage]
        told = 40 + 20 * number + said[stage].count("\n")
        assert steps == list(range(1, len(steps) + 1)) and told <= len(steps) <= told + 1
        assert len([point for point in run.metrics("margin") if point.stage == stage]) == len(steps)


def test_rows_wait_for_a_disk_that_cannot_be_written(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "out").write_text("in the way")
    record = RunRecord.start(tmp_path / "out", "dpo")
    session = record.session(prefix="dpo")
    session.log(1, {"loss": 1.0})
    assert len(caplog.messages) == 1 and "can't be written" in caplog.text and "wait in memory" in caplog.text
    (tmp_path / "out").unlink()
    session.log(2, {"loss": 2.0})
    record.end("finished")
    assert values(only(tmp_path / "out"), "loss") == [(1, 1.0), (2, 2.0)]
    assert len(caplog.messages) == 1


def test_a_full_disk_stops_no_training(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    record = RunRecord.start(tmp_path, "dpo")
    session = record.session(prefix="dpo")
    connection = record._opened()
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count={pages}")
    for step in range(200):
        session.log(step, {f"metric-{number}": 1.0 for number in range(20)})
    assert len(caplog.messages) == 1 and "full" in caplog.text
    record.end("finished")
    assert len(only(tmp_path).metrics("metric-0")) == 200  # a new connection has no limit


def others(file: Path, kind: str) -> None:
    if kind == "text":
        file.write_text("no database at all, but a text that is long enough to be taken for one")
        return
    if kind == "newer":
        RunRecord.start(file.parent, "dpo").end("finished")
    with sqlite3.connect(file) as connection:
        connection.execute(f"PRAGMA user_version={VERSION + 1}" if kind == "newer" else "CREATE TABLE t (x)")
    connection.close()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("text", "is no record of a run: file is not a database"),
        ("foreign", "is no record of a run: it is another program's database"),
        ("newer", r"was written by a newer hf-align \(its tables have version 2, this one knows 1\)"),
    ],
)
def test_other_files_are_left_as_they_are(kind: str, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    file = tmp_path / FILE
    others(file, kind)
    before = file.read_bytes()
    with pytest.raises(UserError, match=said):
        read_record(tmp_path)
    record = RunRecord.start(tmp_path, "dpo", resume=True)
    record.session(prefix="dpo").log(1, {"loss": 1.0})
    record.end("finished")
    assert len(caplog.messages) == 1 and "This run isn't recorded" in caplog.text
    assert file.read_bytes() == before


def test_a_record_is_read_where_nothing_can_be_written(tmp_path: Path):
    """The state of a killed writer: its log is beside the file."""
    record = RunRecord.start(tmp_path / "live", "dpo")
    record.session(prefix="dpo").log(1, {"loss": 1.0})
    (tmp_path / "copy").mkdir()
    for part in (FILE, f"{FILE}-wal"):
        (tmp_path / "copy" / part).write_bytes((tmp_path / "live" / part).read_bytes())
    record.close()
    if os.geteuid() == 0:  # whom permissions don't stop: a folder in place of the shared memory does
        (tmp_path / "copy" / f"{FILE}-shm").mkdir()
    (tmp_path / "copy").chmod(0o500)
    assert values(only(tmp_path / "copy"), "loss") == [(1, 1.0)]
    (tmp_path / "copy").chmod(0o700)


def test_records_are_found_below_folders(tmp_path: Path):
    for name in ("b", "a/deep", "other"):
        RunRecord.start(tmp_path / name, name[0]).end("finished")
    assert find_records(tmp_path) == [tmp_path / "a/deep" / FILE, tmp_path / "b" / FILE, tmp_path / "other" / FILE]
    assert [run.algorithm for run in read_runs(tmp_path / "b", tmp_path / "a", tmp_path / "b" / FILE)] == ["b", "a"]
    with pytest.raises(UserError, match="nowhere is no folder"):
        read_runs(tmp_path / "nowhere")
    for folder, said in ((tmp_path, "has no record of a run"), (tmp_path / "nowhere", "there is no folder")):
        with pytest.raises(UserError, match=said):
            read_record(folder)
    (tmp_path / "b" / FILE).write_bytes(b"")
    with pytest.raises(UserError, match="is empty: its run hasn't begun"):
        read_record(tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "greater"),
    [
        *(("eval_loss", False), ("dpo/loss", False), ("train_loss", False), ("loss/policy_avg", None)),
        *(
            ("eval_rewards/margins", True),
            ("rm/eval_accuracy", True),
            ("rm/margin", True),
            ("eval_news_accuracy", True),
        ),
        *(("eval_reward", True), ("eval_judge", True), ("ppo/objective/scores", True), ("objective/kl", None)),
    ],
)
def test_which_way_is_better(name: str, greater: bool | None):
    assert is_greater_better(name, True) and not is_greater_better(name, False)
    if greater is None:
        with pytest.raises(UserError, match="give greater_is_better"):
            is_greater_better(name)
    else:
        assert is_greater_better(name) is greater
