"""PPO on two processes must end with the weights, whitening, statistics and KL of one with twice the batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.distributed.test_two_processes import launch

SCRIPT = Path(__file__).with_name("ppo_script.py")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["reward", "kl", "group"])
def test_two_processes_equal_one_with_twice_the_batch(kind: str, tmp_path: Path):
    one, one_logs = launch(1, 4, kind, "toy", tmp_path / "one", SCRIPT)
    two, two_logs = launch(2, 2, kind, "toy", tmp_path / "two", SCRIPT)
    assert one.keys() == two.keys()
    for name, weight in one.items():
        torch.testing.assert_close(weight, two[name], atol=1e-5, rtol=1e-5, msg=name)
    assert len(one_logs["history"]) == len(two_logs["history"]) == 9
    for ours, theirs in zip(one_logs["history"], two_logs["history"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
    for name in ("eval", "controller", "scores"):
        assert one_logs[name] == pytest.approx(two_logs[name], abs=1e-4), name
    assert len(one_logs["samples"]) == len(two_logs["samples"]) == 7
    for ours, theirs in zip(one_logs["samples"], two_logs["samples"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-4)
