import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hf_align.cli.main import main
from hf_align.feedback import PreferenceStore


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "there is no store prefs.db; hf-align collect makes one"),
        (["--users", "users.txt", "--user", "anna"], "not both"),
    ],
)
def test_bad_input_exits_with_2_and_one_line(
    flags: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["annotate", *flags]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_an_interrupt_ends_with_one_line_on_what_was_stored(tmp_path: Path) -> None:
    PreferenceStore(f"sqlite:///{tmp_path}/prefs.db").close()
    command = [sys.executable, "-u", "-m", "hf_align.cli", "annotate", "--store", f"{tmp_path}/prefs.db"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert "The page is at http://127.0.0.1:" in server.stdout.readline()
        server.send_signal(signal.SIGINT)
        out, err = server.communicate(timeout=60)
    assert out.strip() == f"0 answers stored in {tmp_path}/prefs.db"
    assert (server.returncode, err) == (0, "")
