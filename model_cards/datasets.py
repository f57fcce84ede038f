"""Cards of exported preference data: README.md with the head that the Hub and `datasets` read."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import DatasetCardData

from hf_align.files import DATA_FACTS, write_text
from hf_align.model_cards.files import CARD, text_digest
from hf_align.model_cards.render import render_text

DATA_FOLDER = "data"
"""Folder of the Parquet files, one for each split."""
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True)
class DataFacts:
    """Facts of a data set's card.

    Attributes:
        name: The data set's name, without its namespace.
        figures: Its statistics, as `hf_align.feedback.export` makes them.
        files: File of each split in `DATA_FOLDER`.
        license: The Hub's identifier; None: not chosen yet.
    """

    name: str
    figures: Mapping[str, Any]
    files: Mapping[str, str]
    license: str | None = None


def data_metadata(facts: DataFacts) -> DatasetCardData:
    """The YAML head of a data set's card, with the file of each split."""
    rows, people = facts.figures["rows"], facts.figures["people"]
    made = {"crowdsourced": people, "machine-generated": facts.figures["models"]}
    files = [{"split": name, "path": f"{DATA_FOLDER}/{file}"} for name, file in facts.files.items()]
    return DatasetCardData(
        license=facts.license or "unknown",
        annotations_creators=[name for name, count in made.items() if count],
        size_categories=[next((size for limit, size in SIZES if rows < limit), "1M<n<10M")],
        pretty_name=facts.name,
        tags=["hf-align", "preference-learning", *(["human-feedback"] if people else [])],
        configs=[{"config_name": "default", "data_files": files}],
    )


def render_data_card(facts: DataFacts, repo_id: str | None = None) -> str:
    """The whole README.md of a data set.

    Args:
        facts: Facts about the data. All text is escaped.
        repo_id: Its repository, for the code that loads it. Default: its name.
    """
    names = {"facts": facts, "figures": facts.figures, "repo": repo_id or facts.name}
    return render_text("dataset.md.j2", data_metadata(facts).to_yaml(), **names, title=names["repo"].split("/")[-1])


def save_data_card(folder: str | os.PathLike[str], facts: DataFacts, *, repo_id: str | None = None) -> None:
    """Write the card of a data set and its facts into a folder."""
    text = render_data_card(facts, repo_id)
    record = {"readme_sha256": text_digest(text), "facts": asdict(facts)}
    write_text(Path(folder) / DATA_FACTS, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    write_text(Path(folder) / CARD, text)


def load_data_facts(folder: str | os.PathLike[str]) -> tuple[DataFacts, bool] | None:
    """The facts that `save_data_card` wrote, and whether the card is still as written; None in another folder."""
    path, card = Path(folder) / DATA_FACTS, Path(folder) / CARD
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    same = not card.exists() or text_digest(card.read_text(encoding="utf-8")) == record["readme_sha256"]
    return DataFacts(**record["facts"]), same
