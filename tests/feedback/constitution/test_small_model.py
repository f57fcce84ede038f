"""What the model of 135M parameters can tell about principles: the figures of docs/how-to/constitution.md."""

from __future__ import annotations

import numpy as np
import pytest

from hf_align.data.parts import Parts
from hf_align.feedback import Constitution, ConstitutionConfig, LanguageModelJudge, Prompt
from hf_align.feedback.collection.writers import open_model
from hf_align.feedback.constitution.compare import TEMPLATE, bias_of, without_bias
from hf_align.feedback.constitution.work import Work
from tests.docs.pages import DOCS
from tests.feedback.constitution.planted import PLANTED

CONSTITUTION = Constitution.default()
PAGE = (DOCS / "how-to" / "constitution.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_its_check_tells_broken_principles_as_the_page_says(base_dir: str) -> None:
    work = Work(CONSTITUTION, ConstitutionConfig(), open_model(base_dir, "base"), Parts())

    def broken(place: int) -> np.ndarray:
        rows = [
            (Prompt([{"role": "user", "content": row[1]}]), row[place], CONSTITUTION.get(row[0])) for row in PLANTED
        ]
        return np.array(work.broken(rows))

    kept, planted = broken(2), broken(3)
    auroc = float((planted[:, None] > kept).mean())
    assert f"AUROC {auroc:.2f}".replace("0.", ".") in PAGE
    assert (
        f"{(planted >= 0.5).sum()} of {len(planted)} that do, and {(kept >= 0.5).sum()} of {len(kept)} that don't"
        in PAGE
    )


@pytest.mark.slow
def test_its_votes_prefer_what_the_page_says(base_dir: str) -> None:
    judge = LanguageModelJudge(base_dir)
    judgements = []
    for id, prompt, kept, planted in PLANTED:
        chosen = judge.with_principle(CONSTITUTION.get(id).question, prompt=TEMPLATE)
        judgements += chosen.compare([prompt], [kept], [planted])
    bias = bias_of(judgements)
    unbiased = [without_bias(each, bias) for each in judgements]
    for name, votes in (("before", judgements), ("after", unbiased)):
        labels = [each.label for each in votes]
        counts = [labels.count(side) for side in (1.0, 0.0, 0.5)]
        assert "| {} | {} | {} | {} |".format(name, *counts) in PAGE
