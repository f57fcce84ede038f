"""The page of a hybrid run: one axis of steps, marks where stages change, what was handed over."""

from __future__ import annotations

import re
from typing import Any

from hf_align.report.hybrid import hybrid_charts, render_hybrid

WORDS = {"policy": "the start", "trains": "an adapter", "reference": "the start", "optimizer": "fresh", "seed": "0"}


def stage(number: int, algorithm: str, steps: int, **more: Any) -> dict[str, Any]:
    return {
        **{"number": number, "algorithm": algorithm, "status": "done", "hand_over": WORDS, "steps": steps},
        **{"of_steps": steps, "ended": "last step", "evaluation": {"eval_loss": 0.5}, **more},
    }


def test_steps_go_on_from_stage_to_stage_and_a_line_marks_each_change():
    stages = [stage(1, "dpo", 4, kl_at_start=0.0, kl_at_end=1.0), stage(2, "ipo", 6, kl=[[3, 2.0]])]
    logged = {1: [{"step": 2, "loss": 0.7}, {"step": 4, "loss": 0.6}], 2: [{"step": 6, "loss": 20.0}]}
    charts = [str(each) for each in hybrid_charts(stages, logged)]
    loss, kl = charts[0], charts[-1]
    assert "1 dpo: 2 0.7, 4 0.6; 2 ipo: 10 20" in loss and "1 dpo: 0 0, 4 1; 2 ipo: 7 2" in kl
    assert loss.count('class="reference"') == 1  # between the two, none at the end
    [cut] = re.findall(r'class="reference" x1="([\d.]+)"', loss)
    low, high = (float(x) for x in (44, 340 - 14))  # the axis goes from 0 to 10
    assert abs(float(cut) - (low + 0.4 * (high - low))) < 0.1


def test_the_page_says_what_was_left_out_and_escapes_names():
    settings = {"model_name": "<b>", "seed": 0, "kl_budget": 2.0}
    content = {"settings": settings, "stages": [stage(1, "dpo", 4)], "left_out": ["stage 2 (ppo)"]}
    page = render_hybrid(content, {1: [{"step": 4, "loss": 0.6}]})
    assert "Left out, since nothing of the KL was left: stage 2 (ppo)." in page and "&lt;b&gt;" in page
    assert "4 of 4" in page and "the start" in page and "At most 2.0 nats" in page
