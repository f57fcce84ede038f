"""Answers on disk and claims on questions."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from hf_align.errors import UserError
from hf_align.feedback.judges.endpoint.cache import AnswerCache, Claim, this_process
from tests.feedback.judges.endpoint.stand_in import Clock


def test_a_question_is_claimed_by_one_until_it_is_answered_or_given_back(tmp_path: Path):
    clock = Clock()
    one, two = (AnswerCache(tmp_path / "a", clock) for _ in range(2))
    assert one.take("k", 10) is Claim.OURS and two.take("k", 10) is Claim.OTHERS
    two.release("k")  # not its own
    assert two.take("k", 10) is Claim.OTHERS
    one.release("k")
    assert two.take("k", 10) is Claim.OURS
    two.put("k", "model", "answer")
    assert one.take("k", 10) == "answer" == one.get("k")
    two.put("k", "model", "another")
    assert AnswerCache(tmp_path / "a", clock).get("k") == "answer"


def test_a_claim_ends_with_its_process_or_on_another_machine_with_its_time(tmp_path: Path):
    clock = Clock()
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    name, _, created = this_process().split("|")
    dead = AnswerCache(tmp_path / "a", clock, process=f"{socket.gethostname()}|{ended.stdout.strip()}|{created}")
    reborn = AnswerCache(tmp_path / "a", clock, process=this_process().replace(created, "1.0"))  # a number used anew
    far = AnswerCache(tmp_path / "a", clock, process=f"other-{name}|1|1.0")
    ours = AnswerCache(tmp_path / "a", clock)
    for gone in (dead, reborn):
        assert gone.take("k", 1000) is Claim.OURS and ours.take("k", 10) is Claim.OURS
        ours.release("k")
    assert far.take("k", 10) is Claim.OURS and ours.take("k", 10) is Claim.OTHERS
    clock.sleep(9)
    far.extend("k", 10)
    clock.sleep(9)
    assert ours.take("k", 10) is Claim.OTHERS
    clock.sleep(2)
    assert ours.take("k", 10) is Claim.OURS


def test_a_file_of_something_else_is_refused(tmp_path: Path):
    (tmp_path / "text").write_text("Not a database, but a text that is long enough to be taken for one. " * 20)
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE votes (id)")
    other.close()
    with pytest.raises(UserError, match=r"cache .*text can't be used: file is not a database"):
        AnswerCache(tmp_path / "text", Clock())
    with pytest.raises(UserError, match="the file holds something else"):
        AnswerCache(tmp_path / "other", Clock())
    with pytest.raises(UserError, match="can't be used"):
        AnswerCache(tmp_path / "text" / "below", Clock())
