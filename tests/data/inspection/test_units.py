import numpy as np

from hf_align.data.agreement import agreement_of
from hf_align.data.inspection.units import Units, digest


def test_a_unit_met_again_counts_once_unless_its_values_are_merged() -> None:
    once, merged = Units(["g"]), Units(["g"], merge=True)
    for units in (once, merged):
        units.add(7, [1.0, 2.0], ["a", "b"], {"g": "x"})
        units.add(3, [5.0], ["a"], {"g": "y"})
        units.add(7, [4.0], ["b"], {"g": "z"})
    assert (once.answers().values.tolist(), once.answers().unit.tolist()) == ([1, 2, 5], [1, 1, 0])
    assert (merged.answers().values.tolist(), merged.answers().unit.tolist()) == ([1, 5, 4], [1, 0, 1])
    assert once.labels("g") == merged.labels("g") == ["y", "x"]


def test_a_random_part_of_many_units_is_kept_whole_and_has_nearly_their_alpha() -> None:
    rng = np.random.default_rng(0)
    small, large = Units(["g"], most=4000), Units(["g"])
    for n in range(5000):
        values = (rng.integers(0, 4) + rng.integers(0, 2, 3)).astype(float).tolist()
        for units in (small, large):
            for _ in range(2):  # repeated units take no room
                units.add(digest(str(n).encode()), values, None, {"g": n % 3})
    kept, whole = small.answers(), large.answers()
    assert small.share == 0.125 and 1500 < len(kept.values) < 2200 and len(whole.values) == 15_000
    assert set(np.bincount(kept.unit)) == {3} and len(small.labels("g")) == len(kept.units)
    alphas = [agreement_of(answers, "interval", resamples=0).alpha for answers in (kept, whole)]
    assert abs(alphas[0] - alphas[1]) < 0.02
