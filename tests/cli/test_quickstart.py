import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hf_align.cli.console import Screen
from hf_align.cli.main import main
from hf_align.experiments.quickstart.job import Job, Stage
from hf_align.experiments.quickstart.profiles import PROFILES
from hf_align.experiments.quickstart.run import run_stages
from hf_align.experiments.quickstart.workspace import Workspace
from hf_align.progress import Silent


@pytest.fixture
def job(tmp_path: Path) -> Job:
    workspace = Workspace(tmp_path / "out")
    workspace.open({}, resume=False, overwrite=False)
    return Job(workspace, "smoke", None, 0, Screen())


def counting(calls: list[str], name: str, error: BaseException | None = None) -> Stage:
    def run(job: Job) -> dict[str, Any]:
        calls.append(name)
        if error is not None:
            raise error
        return {"answer": name}

    return Stage(name, f"title of {name}", run)


def test_stages_run_once_and_a_failed_one_again(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run_stages(job, [counting(calls, "a"), counting(calls, "b", KeyboardInterrupt()), counting(calls, "c")])
    assert calls == ["a", "b"]
    capsys.readouterr()
    results = run_stages(job, [counting(calls, "a"), counting(calls, "b"), counting(calls, "c")])
    assert calls == ["a", "b", "b", "c"]
    assert [record["answer"] for record in results.values()] == ["a", "b", "c"]
    assert all(record["seconds"] >= 0 for record in results.values())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "[1/3] title of a: already done"
    assert lines[1] == "[2/3] title of b"


def test_nothing_but_lines_off_a_terminal(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    with job.progress.task("working", 3) as advance:
        advance(3, "done")
    job.progress.line("[1/2] a long line is not wrapped " + 20 * "and goes on ")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert shown.count("\n") == 1


def test_missing_extras_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)  # as if it were not installed
    assert main(["quickstart", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == ('hf-align: error: quickstart needs gguf: pip install "hf-align[quickstart]"\n')
    assert not (tmp_path / "out").exists()


def test_ctrl_c_repeats_the_settings_in_its_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", interrupted)  # in the first stage
    out = tmp_path / "an out"
    assert main(["quickstart", "--out", str(out), "--profile", "smoke", "--quantization", "4bit", "--seed", "3"]) == 130
    assert (
        f"Resume with: hf-align quickstart --out '{out}' --profile smoke --quantization 4bit --seed 3 --resume"
        in capsys.readouterr().err
    )


def test_an_out_that_cannot_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["quickstart", "--profile", "smoke", "--out", str(tmp_path / "file" / "below")]) == 2
    assert capsys.readouterr().err.startswith("hf-align: error: --out: can't write to")


def test_mistakes_and_help_come_before_torch(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code = (
        "import sys; from hf_align.cli.main import main; "
        f"main(['quickstart', '--out', {str(tmp_path / 'file')!r}]); main(['quickstart', '--help']); "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "is not a quickstart folder" in done.stderr
    assert done.stdout.splitlines()[-1] == "False"


def test_every_profile_makes_valid_configs() -> None:
    from hf_align.experiments.quickstart.stages import training_arguments
    from hf_align.trainers.dpo import DPOConfig, IPOConfig
    from hf_align.trainers.ppo.trainer import PPOConfig
    from hf_align.trainers.reward import RewardConfig

    for name in PROFILES:
        job = Job(Workspace(Path("nowhere")), name, None, 0, Silent())
        stages = {"reward": RewardConfig, "dpo": DPOConfig, "ipo": IPOConfig, "ppo": PPOConfig}
        for stage, config in stages.items():
            args = training_arguments(job, stage, config)
            # A crash between two checkpoints must not cost the whole stage.
            assert 0 < args.save_steps < args.max_steps
            assert args.seed == 0
