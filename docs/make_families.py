"""Write docs/reference/families.md from the table of tests (`make docs`); a test checks that the page is current."""

from pathlib import Path

from hf_align.models.classifier import classifier_class
from tests.families import FAMILIES, Family

PAGE = Path(__file__).parent / "reference" / "families.md"
COLUMNS = ("DPO", "full", "merge", "reward", "PPO", "8-bit")
LAYOUTS = {"branches": "yes", "window": "within the window", "rows": "no"}
INTRODUCTION = """\
# Families of models

<!-- Written by `make docs` from tests/families.py: edit the table there. -->

Every decoder in transformers should work; these are tested, as tiny random models, by `make test` (log-probs and
samples) and `make test-all` (the trainers), each against the model's own logits for every text alone, to 1e-4:

- **DPO** with LoRA on all linear layers: first log-probs, first loss, the adapter saved and loaded again. **full**: all
  weights trained, saved and loaded again. **merge**: the adapter merged into its base.
- **reward**: a head and an adapter, trained, saved, loaded. If the head is *ours*, transformers has no suitable
  classifier, and hf_align is needed to load it.
- **PPO**: a rollout, its scores by that reward model, an update. **8-bit**: log-probs and DPO on 8-bit weights.
- **One row**: whether responses to a prompt share it in the [branch layout](../concepts/branch-layout.md). If not,
  each gets a separate row, which the trainers detect.

"yes" is a passing test; anything else is the error message. Encoders (BERT, XLNet) and encoder-decoders (BART,
T5) are refused by every trainer and command.

"""


def page() -> str:
    """Write the page."""
    header = ("Family", "What is special", "One row", "Head", *COLUMNS)
    rows = [header, ("---",) * len(header), *(row(name, family) for name, family in FAMILIES.items())]
    return INTRODUCTION + "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"


def row(name: str, family: Family) -> tuple[str, ...]:
    """A family's cells."""
    ours = classifier_class(family.make_config()).__name__.startswith("HfAlign")
    cells = (f"“{family.refused[column]} …”" if column in family.refused else "yes" for column in COLUMNS)
    return (name, family.trait, LAYOUTS[family.layout], "ours" if ours else "transformers'", *cells)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"Wrote {PAGE}")
