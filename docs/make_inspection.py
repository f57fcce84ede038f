"""Write the rows of the how-to page on inspection: `python -m docs.make_inspection FOLDER`.

People's sentences from the package with planted trouble: pairs.jsonl and held-out.jsonl.
"""

import argparse
import json
from pathlib import Path

from hf_align.files import write_text
from tests.data.inspection.planted import planted


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    data = planted(2000, seed=0)
    for name, rows in (("pairs", data.rows), ("held-out", data.held_out)):
        write_text(folder / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


if __name__ == "__main__":
    main()
