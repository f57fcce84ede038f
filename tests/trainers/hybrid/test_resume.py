"""A hybrid killed anywhere, in a stage or between two, goes on to the same weights."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hf_align.errors import UserError
from hf_align.trainers import Stage
from tests.trainers.hybrid.run import (
    Killed,
    KilledAtRenames,
    demonstrations,
    hybrid,
    lora,
    ppo,
    rows,
    sampling,
    save_toy,
    shared,
    weights_of,
)
from tests.trainers.test_kept import spoil_card

KILLED = """
import gc, sys
gc.disable()
from pathlib import Path
from tests.trainers.hybrid.run import KilledAtRenames
from tests.trainers.hybrid.test_resume import build
folder, kind, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with KilledAtRenames(at, process=True):
    build(folder, kind).train(resume_from_checkpoint=(folder / "hybrid.json").exists() or None)
"""
SLOW = pytest.mark.slow


def stages_of(kind: str) -> list[Stage]:
    """Three algorithms; of "mixed" four, with merges, copies and criteria in between."""
    if kind == "mixed":
        return [
            Stage("sft", shared(), train_dataset=demonstrations()),
            Stage("dpo", shared(), adapter="new"),
            Stage("online-dpo", sampling(), reference="previous"),
            Stage("ipo", shared(), adapter="new", peft_config=lora(3)),
        ]
    if kind == "watched":
        evaluated = ppo(eval_strategy="steps", eval_steps=1)
        return [
            Stage("sft", shared(), train_dataset=demonstrations()),
            Stage("ppo", evaluated, until={"metric": "reward", "patience": 1}, eval_dataset=rows()),
            Stage("dpo", shared(max_steps=3), until={"kl": 1e-6}),
        ]
    return [Stage("dpo", shared()), Stage("ppo", ppo()), Stage("ipo", shared())]


def build(out: Path, kind: str) -> Any:
    """A hybrid on the model beside its folder."""
    changes: dict[str, Any] = {"peft_config": None} if kind == "whole" else {}
    if kind == "watched":
        changes |= {"kl_budget": 50.0, "kl_every": 1}
    return hybrid(str(out.parent / "toy"), out, stages_of(kind), **changes)


def resumed(out: Path, kind: str) -> None:
    """Go on, or begin if it was killed before there was anything."""
    build(out, kind).train(resume_from_checkpoint=(out / "hybrid.json").exists() or None)


def test_killed_three_times_a_hybrid_goes_on_to_the_same_weights(tmp_path: Path):
    save_toy(tmp_path / "toy")
    with KilledAtRenames(0) as seams:
        build(tmp_path / "whole", "lora").train()
    cut = tmp_path / "cut"
    for at in (seams.count // 5, seams.count // 3, seams.count // 4):  # each from where the last one stood
        with pytest.raises(Killed), KilledAtRenames(at):
            resumed(cut, "lora")
    resumed(cut, "lora")
    assert weights_of(cut) == weights_of(tmp_path / "whole")
    records = [json.loads((tmp_path / name / "hybrid.json").read_text())["stages"] for name in ("cut", "whole")]
    assert records[0] == records[1]
    with pytest.raises(UserError, match="already holds a hybrid run; choose another folder, or resume it with"):
        build(cut, "lora").train()


@SLOW
@pytest.mark.parametrize("kind", ["lora", "whole", "mixed", "watched"])
def test_a_process_killed_at_twenty_places_goes_on_to_the_same_weights(kind: str, tmp_path: Path):
    save_toy(tmp_path / "toy")
    with KilledAtRenames(0) as seams:
        build(tmp_path / "whole", kind).train()
    places = random.Random(0).sample(range(1, seams.count + 1), 20)
    for at in places:
        cut = tmp_path / f"cut-{at}"
        command = [sys.executable, "-c", KILLED, str(cut), kind, str(at)]
        killed = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
        resumed(cut, kind)
        assert weights_of(cut) == weights_of(tmp_path / "whole"), at


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 4}, "the run in .* has seed 3, not 4"),
        ({"stages": ["dpo", "ipo"]}, "has the stages dpo, ppo, ipo, not dpo, ipo"),
        ({"beta": 0.3}, r"stage 3 \(ipo\): the run in .* has beta 0\.1, not 0\.3"),
        ({"train_dataset": rows().select(range(4))}, r"stage 1 \(dpo\): train_dataset has other rows"),
        ({"reference": "previous"}, r"stage 3 \(ipo\): the run in .* has reference 'start', not 'previous'"),
        ({"toy": 5}, "model has other weights than when the run in"),
    ],
    ids=["seed", "stages", "option", "rows", "reference", "weights"],
)
def test_only_the_same_run_goes_on(changes: dict[str, Any], message: str, tmp_path: Path):
    toy = save_toy(tmp_path / "toy")
    with pytest.raises(Killed), KilledAtRenames(4):  # the state, the start's digest, the first stage's record
        hybrid(toy, tmp_path / "out", stages_of("lora")).train()
    beta, reference = changes.pop("beta", 0.1), changes.pop("reference", None)
    if "toy" in changes:
        save_toy(tmp_path / "toy", changes.pop("toy"))
    stages = changes.pop("stages", None) or [
        *stages_of("lora")[:2],
        Stage("ipo", shared(beta=beta), reference=reference),
    ]
    with pytest.raises(UserError, match=message):
        hybrid(toy, tmp_path / "out", stages, **changes).train(resume_from_checkpoint=True)


def test_logging_may_change(tmp_path: Path):
    toy = save_toy(tmp_path / "toy")
    with pytest.raises(Killed), KilledAtRenames(4):
        hybrid(toy, tmp_path / "out", [Stage("dpo", shared())]).train()
    trainer = hybrid(toy, tmp_path / "out", [Stage("dpo", shared(logging_steps=2, save_total_limit=1))])
    assert trainer.train(resume_from_checkpoint=True)["finished"]


def test_there_must_be_a_run_to_go_on_with(tmp_path: Path):
    with pytest.raises(UserError, match="has no hybrid run yet; leave it out to start"):
        hybrid(save_toy(tmp_path / "toy"), tmp_path / "out").train(resume_from_checkpoint=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="already holds a training run; choose another folder"):
        hybrid(str(tmp_path / "toy"), tmp_path / "other").train()


class FailsOnce:
    """A reward that fails in the first evaluation, after a training of two steps."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, prompts: list[str], responses: list[str], **columns: Any) -> list[float]:
        self.calls += 1
        if self.calls == 3:
            raise LookupError("the reward's server is gone")
        return [float(len(response)) for response in responses]


def test_a_card_or_an_evaluation_that_fails_loses_no_stage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out, base = tmp_path / "out", save_toy(tmp_path / "base")
    spoil_card(out)
    reward = FailsOnce()
    options = ppo(max_steps=4, save_strategy="no")

    def run() -> Any:
        return hybrid(base, out, [Stage("ppo", options)], reward=reward, eval_dataset=rows())

    with pytest.raises(UserError, match="the reward's server is gone"):
        run().train()
    assert (out / "stage-1-ppo" / "policy" / "adapter_model.safetensors").exists()
    calls = reward.calls
    assert run().train(resume_from_checkpoint=True)["finished"]
    assert reward.calls == calls + 1, "it is evaluated, and nothing is trained again"
    assert f"The model in {out} is saved, but its card can't be written: IsADirectoryError" in caplog.text
    assert (out / "adapter_model.safetensors").exists()
