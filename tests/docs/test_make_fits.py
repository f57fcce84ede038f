import json

import pytest

from docs.make_fits import ALGORITHMS, NAMES, PAGE, PLANS, SIZES, page, planned


def test_a_larger_gpu_fits_what_a_smaller_one_does() -> None:
    for name, cells in json.loads(PLANS.read_text()).items():
        assert set(cells) == set(SIZES)
        found = [cells[size]["bytes"] for size in SIZES if cells[size] is not None]
        assert found == [cells[size]["bytes"] for size in SIZES[len(SIZES) - len(found) :]], f"{name}: a gap"


def test_the_page_is_written_from_the_plans_of_every_model_and_algorithm() -> None:
    """If not, run `python -m docs.make_fits`."""
    plans = json.loads(PLANS.read_text())
    assert set(plans) == {f"{shape} {algorithm}" for shape in NAMES for algorithm in ALGORITHMS}
    assert PAGE.read_text(encoding="utf-8") == page(plans)


@pytest.mark.slow
def test_the_plans_are_those_of_the_planner() -> None:
    """If not, run `python -m docs.make_fits --again`."""
    name = "qwen2.5-7b reward"
    kept, made = json.loads(PLANS.read_text())[name], planned(*name.split())
    assert {size: plan and plan["changes"] for size, plan in made.items()} == {
        size: plan and plan["changes"] for size, plan in kept.items()
    }
