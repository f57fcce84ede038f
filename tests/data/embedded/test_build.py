"""The build script on a small archive with the source's layout and quirks."""

import io
import tarfile

import pyarrow.parquet as pq
import pytest

from hf_align.data.embedded import build

FILES = {
    "movieReviewSnippets": ["1\t2.5\tA ''good''    film\t[3, 2]", "2\t-1\tIt's bad &amp;amp; long\t[-1, -1]"],
    "amazonReviewSnippets": ["1_1\t0\tit works.\t[0, 0]", "1_2\t0\t!\t[0, 1]", "2_1\t1\tit works!\t[1, 1]"],
    "tweets": ["1\t9.9\t@anonymous Yay &lt;3 http://url_removed\t[4, -4, 3]"],
    "nytEditorialSnippets": ["1\t0\tNewspaper text\t[0]"],
}


def make_sdist(path, *, without=()):
    rated = io.BytesIO()
    with tarfile.open(fileobj=rated, mode="w:gz") as inner:
        for stem, lines in FILES.items():
            fields = [line.split("\t") for line in lines]
            truth = "\r\n".join("\t".join(each[:3]) for each in fields)
            votes = "\r\n".join(f"{each[0]}\t{each[1]}\t0.5\t{each[3]}" for each in fields)
            add(inner, f"hutto_ICWSM_2014/{stem}_GroundTruth.txt", truth.encode("utf-8-sig"))
            if stem not in without:
                add(inner, f"hutto_ICWSM_2014/{stem}_anonDataRatings.txt", votes.encode())
    with tarfile.open(path, "w:gz") as outer:
        add(outer, "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz", rated.getvalue())
        add(outer, "vaderSentiment-3.3.2/vaderSentiment/vader_lexicon.txt", b"good\t1.9\t0.9\t[2, 1]\n")
        add(outer, "vaderSentiment-3.3.2/LICENSE.txt", b"licence")
    return path


def add(archive, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def test_build(tmp_path, capsys):
    sdist = make_sdist(tmp_path / "sdist.tar.gz")
    build.main([str(sdist), "--out", str(tmp_path / "a")])
    build.main([str(sdist), "--out", str(tmp_path / "b")])
    parquet = tmp_path / "a" / "ratings.parquet"
    assert parquet.read_bytes() == (tmp_path / "b" / "ratings.parquet").read_bytes()
    assert (tmp_path / "a" / "LICENSE.vader.txt").read_bytes() == b"licence"
    table = pq.read_table(parquet)
    assert table.schema.equals(build.SCHEMA)
    rows = [(r["domain"], r["source_id"], r["text"], r["ratings"]) for r in table.to_pylist()]
    assert rows == [
        ("movies", "1", 'A "good" – film', [3, 2]),
        ("movies", "2", "It's bad & long", [-1, -1]),
        ("products", "1_1", "it works.", [0, 0]),
        ("products", "2_1", "it works!", [1, 1]),
        ("tweets", "1", "Yay <3", [4, -4, 3]),
    ]
    assert "products: train 2, validation 0, test 0; dropped 1" in capsys.readouterr().out


def test_texts_without_ratings_and_wrong_archives_are_refused(tmp_path, capsys):
    wrong = {
        "no ratings": make_sdist(tmp_path / "no_ratings.tar.gz", without=("tweets",)),
        "no archive": tmp_path / "text.tar.gz",
        "no file": tmp_path / "missing.tar.gz",
    }
    wrong["no archive"].write_text("not a tar archive")
    for path, message in zip(
        wrong.values(), ("holds no hutto_ICWSM_2014/tweets", "is not a tar", "does not exist"), strict=True
    ):
        with pytest.raises(SystemExit) as exit_:
            build.main([str(path), "--out", str(tmp_path / "out")])
        assert exit_.value.code == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
