"""The table of losses says what the registry says."""

import re

from hf_align.losses import PREFERENCE_LOSSES
from hf_align.losses.registry import NOT_OFFERED
from tests.docs.pages import DOCS


def test_the_table_has_every_loss_with_its_formula_paper_and_reference():
    page = (DOCS / "how-to" / "losses.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if re.search(r"arxiv.*\| (yes|no) \|$", line)]
    rows = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in lines]
    expected = [
        [
            f"`{loss.name}`",
            loss.title,
            f"`{loss.formula}`".replace("|", "\\|"),
            f"{loss.paper}, [{loss.arxiv}](https://arxiv.org/abs/{loss.arxiv})",
            "no" if loss.reference_free else "yes",
        ]
        for loss in PREFERENCE_LOSSES.values()
    ]
    assert rows == expected
    assert all(f"`{name}`" in page for name in NOT_OFFERED)
