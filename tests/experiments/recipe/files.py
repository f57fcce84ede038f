"""Recipe files for tests."""

from pathlib import Path

BASE = "model: m\ntrain_dataset: d.jsonl\n"


def write(folder: Path, text: str) -> str:
    path = folder / "r.yaml"
    path.write_text(text)
    return str(path)
