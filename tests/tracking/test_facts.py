"""Facts of a run's process have no secrets."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from hf_align.tracking.facts import command_line, git_revision, surroundings, without_secrets

TOKEN = "hf_" + "a1B2" * 8


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        *(({"hub_token": "x"}, "***"), ({"token": "x"}, "***"), ({"api_key": "x"}, "***"), ({"api-key": "x"}, "***")),
        *(({"password": "x"}, "***"), ({"client_secret": "x"}, "***"), ({"authorization": "Bearer x"}, "***")),
        *(
            ({"eos_token": "<end>"}, "<end>"),
            ({"max_tokens": 5}, 5),
            ({"row_tokens": None}, None),
            ({"key": True}, True),
        ),
        ({"model": f"a {TOKEN} b"}, "a *** b"),
        ({"store": "postgresql://me:pass@db/x"}, "postgresql://***@db/x"),
        ({"path": Path("out")}, "out"),
    ],
)
def test_secrets_are_hidden_by_name_and_by_form(given: dict[str, object], kept: object):
    [value] = without_secrets({"nested": [given]})["nested"]
    assert list(value.values()) == [kept]


def test_a_command_line_has_none():
    typed = ["/home/me/bin/hf-align", "ppo", "--hub_token", "abc", "--api-key=x", "--judge", "{api_key: secret1}"]
    typed += ["--eval_judge.key", "secret2"]
    shown = command_line([*typed, "--model", TOKEN, "--eos_token", "<end>"])
    assert shown.startswith("hf-align ppo --hub_token '***' '--api-key=***' --judge ")
    assert "<end>" in shown
    assert not any(secret in shown for secret in ("abc", "secret1", "secret2", TOKEN, "/home/me", "=x"))


def test_the_host_stays_unnamed():
    facts = surroundings()
    assert socket.gethostname() not in str(facts["host"]) and facts["versions"]["hf-align"]


def test_a_changed_working_tree_is_said_to_be(tmp_path: Path):
    assert git_revision(str(tmp_path / "nowhere")) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "file"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert git_revision(str(tmp_path)) == head
    (tmp_path / "file").write_text("2")
    git_revision.cache_clear()
    assert git_revision(str(tmp_path)) == f"{head}-dirty"
    git_revision.cache_clear()
