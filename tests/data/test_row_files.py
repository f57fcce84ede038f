"""Names of files; broken ones are in tests/cli/test_convert.py."""

from pathlib import Path

from hf_align.data.row_files import suffix_of


def test_the_suffix_of_a_compressed_file_says_what_is_inside() -> None:
    assert [suffix_of(Path(name)) for name in ("a.JSONL", "a.b.csv.gz", "a.gz", "a")] == [
        ".jsonl",
        ".csv.gz",
        ".gz",
        "",
    ]
