from __future__ import annotations

import pytest

from benchmarks.profiling import OTHER, OUTSIDE, breakdown, group_of


@pytest.mark.parametrize(
    ("operator", "group"),
    [
        ("aten::mm", "matrix products"),
        ("aten::addmm", "matrix products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("aten::copy_", "casts and copies"),
        ("aten::mul", "norms and activations"),
        ("aten::silu_backward", "norms and activations"),
        ("aten::_log_softmax", "softmax and log-probs"),
        ("aten::index_put_", "indexing"),
        ("aten::_fused_adamw_", "optimizer"),
        ("aten::expand", OTHER),
    ],
)
def test_operators_have_groups(operator: str, group: str):
    assert group_of(operator) == group


def test_seconds_add_up_to_the_wall_time():
    seconds = breakdown({"aten::mm": 2.0, "aten::bmm": 1.0, "aten::mul": 0.5}, wall=4.0)
    assert seconds == {"matrix products": 3.0, "norms and activations": 0.5, OUTSIDE: 0.5}
    assert next(iter(seconds)) == "matrix products"
