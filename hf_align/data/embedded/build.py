"""Make the embedded data set, `ratings.parquet`, from the source distribution of vaderSentiment 3.3.2.

    pip download --no-binary :all: --no-deps vaderSentiment==3.3.2
    python -m hf_align.data.embedded.build vaderSentiment-3.3.2.tar.gz

Only the source distribution contains the rated texts; the wheel does not.
"""

import argparse
import io
import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hf_align.data.embedded.openings import OpeningFilter
from hf_align.data.embedded.ratings import LICENSE_FILE, RATINGS_FILE
from hf_align.data.embedded.splits import assign_splits, group_rows
from hf_align.data.embedded.text import clean_text, has_words
from hf_align.errors import UserError

_ROOT = "vaderSentiment-3.3.2"
_RATED_ARCHIVE = f"{_ROOT}/additional_resources/hutto_ICWSM_2014.tar.gz"
# The newspaper sentences of the same archive (nytEditorialSnippets) are left out: we may not redistribute them.
_FILES = {"movies": "movieReviewSnippets", "products": "amazonReviewSnippets", "tweets": "tweets"}
SCHEMA = pa.schema(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("ratings", pa.list_(pa.field("element", pa.int8(), nullable=False)), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("neutral_words", pa.int8(), nullable=False),
    ]
)


@dataclass(frozen=True)
class RatedText:
    """One sentence with every rater's vote, from -4 (very negative) to 4 (very positive), in the file's order."""

    text: str
    domain: str
    ratings: list[int]
    source_id: str

    @property
    def mean(self) -> float:
        """Mean of the votes."""
        return sum(self.ratings) / len(self.ratings)


def read_domain(rated: tarfile.TarFile, domain: str) -> list[RatedText]:
    """Read one domain's texts and ratings, joined by id and cleaned; texts without a word are included.

    Args:
        rated: the opened inner archive with the rated texts.
        domain: "movies", "products" or "tweets".

    Returns:
        One `RatedText` per id, in the file's order.

    Raises:
        UserError: if the archive lacks the files, or a text has no ratings.
    """
    stem = f"hutto_ICWSM_2014/{_FILES[domain]}"
    ratings = {line[0]: json.loads(line[3]) for line in _lines(_read(rated, f"{stem}_anonDataRatings.txt"))}
    rows = []
    for source_id, _, text in _lines(_read(rated, f"{stem}_GroundTruth.txt")):
        if source_id not in ratings:
            raise UserError(f"{domain} text {source_id} has no ratings: is this the archive of version 3.3.2?")
        rows.append(RatedText(clean_text(text), domain, ratings[source_id], source_id))
    return rows


def build_table(archive: tarfile.TarFile) -> tuple[pa.Table, Counter[str]]:
    """Make the table of all three domains.

    Args:
        archive: the opened source distribution.

    Returns:
        The table with `SCHEMA`, and per domain the number of rows dropped because their text has no word.
    """
    with tarfile.open(fileobj=io.BytesIO(_read(archive, _RATED_ARCHIVE))) as rated:
        everything = [row for domain in _FILES for row in read_domain(rated, domain)]
    rows = [row for row in everything if has_words(row.text)]
    dropped = Counter(row.domain for row in everything) - Counter(row.domain for row in rows)
    domains, source_ids, texts = [r.domain for r in rows], [r.source_id for r in rows], [r.text for r in rows]
    splits = assign_splits(group_rows(domains, source_ids, texts))
    lexicon = (line[0] for line in _lines(_read(archive, f"{_ROOT}/vaderSentiment/vader_lexicon.txt")))
    training = ((r.text, r.domain, r.mean) for r, split in zip(rows, splits, strict=True) if split == "train")
    neutral = [*map(OpeningFilter(lexicon, training).neutral_words, texts)]
    return pa.table([texts, domains, [r.ratings for r in rows], source_ids, splits, neutral], schema=SCHEMA), dropped


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: read the source distribution, write the parquet and the licence, print the counts."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="python -m hf_align.data.embedded.build",
    )
    parser.add_argument("sdist", type=Path, help="vaderSentiment-3.3.2.tar.gz")
    parser.add_argument("--out", type=Path, default=RATINGS_FILE.parent, help="folder to write to (the package's own)")
    args = parser.parse_args(argv)
    if not args.sdist.is_file():
        parser.error(f"{args.sdist} does not exist: --help says how to get it")
    try:
        with tarfile.open(args.sdist) as archive:
            table, dropped = build_table(archive)
            licence = _read(archive, f"{_ROOT}/LICENSE.txt")
    except tarfile.TarError:
        parser.error(f"{args.sdist} is not a tar archive: --help says how to get it")
    except UserError as error:
        parser.error(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, args.out / RATINGS_FILE.name, compression="zstd", compression_level=19)
    (args.out / LICENSE_FILE.name).write_bytes(licence)
    counts = Counter(zip(table["domain"].to_pylist(), table["split"].to_pylist(), strict=True))
    for domain in _FILES:
        parts = ", ".join(f"{split} {counts[domain, split]}" for split in ("train", "validation", "test"))
        print(f"{domain}: {parts}; dropped {dropped[domain]}")
    print(f"{args.out / RATINGS_FILE.name}: {(args.out / RATINGS_FILE.name).stat().st_size} bytes")


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    try:
        member = archive.extractfile(name)
    except KeyError:
        member = None
    if member is None:
        raise UserError(f"the archive holds no {name}: give the source distribution of vaderSentiment 3.3.2")
    return member.read()


def _lines(content: bytes) -> list[list[str]]:
    """The tab-separated fields of every line; some files start with a byte order mark, some end lines with CRLF."""
    return [line.rstrip("\r").split("\t") for line in content.decode("utf-8-sig").split("\n") if line]


if __name__ == "__main__":
    main()
