import pytest

from hf_align.errors import UserError
from hf_align.evaluation.continuations import Continuation
from hf_align.evaluation.policies import compare_policies


def test_compare_policies_by_hand() -> None:
    def written(texts: list[str]) -> list[Continuation]:
        return [Continuation(text, len(text.split()), text.endswith(".")) for text in texts]

    report = compare_policies(
        {"base": written(["x y", "x z.", "w"]), "dpo": written(["x y.", "p q.", "w v u."])},
        {"base": [0.0, 0.5, -1.0], "dpo": [0.5, 1.0, 0.0]},
        ["a", "a", "b"],
    )
    base, dpo = report["all"]["policies"]["base"], report["all"]["policies"]["dpo"]
    assert base["score"] == pytest.approx(-1 / 6)
    assert dpo["gain"] == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    assert dpo["gain_interval"] == pytest.approx([0.5, 1.0])
    assert (base["ended"], dpo["ended"]) == (pytest.approx(1 / 3), 1.0)
    assert dpo["mean_tokens"] == pytest.approx(7 / 3)
    assert base["distinct_2"] == 1.0
    assert "gain" not in base
    assert report["a"]["prompts"] == 2
    assert report["a"]["policies"]["dpo"]["gain_interval"] == pytest.approx([0.5, 0.5])


def test_rewards_are_compared_in_standard_deviations_of_the_first_policy() -> None:
    samples = {name: [Continuation("x", 1, True)] * 4 for name in ("base", "ppo")}
    flat = {name: [0.0] * 4 for name in samples}
    rewards = {"base": [-1.0, 1.0, -1.0, 1.0], "ppo": [2.0, 2.0, 0.0, 0.0]}
    report = compare_policies(samples, flat, ["a"] * 4, rewards=rewards, resamples=50)["all"]["policies"]
    assert (report["base"]["reward"], report["base"]["reward_sd"]) == (0.0, 1.0)
    assert report["ppo"]["reward_gain"] == report["ppo"]["reward_gain_sds"] == 1.0
    low, high = report["ppo"]["reward_gain_interval"]
    assert -1 <= low <= 1 <= high <= 3


def test_compare_policies_refuses_missing_rows() -> None:
    sample = Continuation("x", 1, True)
    with pytest.raises(UserError, match="'dpo'"):
        compare_policies({"base": [sample], "dpo": []}, {"base": [0.0], "dpo": []}, ["a"])
