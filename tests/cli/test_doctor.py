import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from bitsandbytes.nn.modules import Linear4bit
from huggingface_hub.errors import HfHubHTTPError

from hf_align.cli.main import main
from hf_align.planning.machine import (
    PACKAGES,
    QUANTISATION_ERROR,
    QUICKSTART,
    check_bitsandbytes,
    check_hub,
    compare_versions,
    quantisation_error,
)


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)


def with_free_disk(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=size))


def test_this_machine_is_well(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with_free_disk(1 << 40, monkeypatch)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "transformers",
        "bitsandbytes    4-bit computes",
        "GFLOP/s",
        "GiB free",
        "not logged in",
        "no problem found",
    ):
        assert part in shown


def test_problems_are_listed_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no kernel image\nmore")

    metadata = tmp_path / "hf_align-0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Name: hf-align\nVersion: 0\nRequires-Dist: torch>=99\nRequires-Dist: gguf; extra == 'gguf'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("bitsandbytes.nn.modules.Linear4bit", broken)
    with_free_disk(1 << 20, monkeypatch)
    assert main(["doctor"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is not >=99" in error
    assert "can't compute in 4 bits here (no kernel image)" in error
    assert "has only 0.0 GiB free" in error


def test_a_missing_package() -> None:
    installed = {**dict.fromkeys((*PACKAGES, *QUICKSTART), "1.0"), "peft": None, "gguf": None}
    actual = {name: (text, problem) for name, text, problem in compare_versions({}, installed)}
    assert actual["peft"][1] == "peft is not installed: pip install hf-align"
    assert "without gguf" in actual["quickstart"][0]
    assert actual["quickstart"][1] is None


def test_wrong_products_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0.01 < quantisation_error() < QUANTISATION_ERROR
    forward = Linear4bit.forward
    monkeypatch.setattr(Linear4bit, "forward", lambda self, x: forward(self, x) * float("nan"))
    assert next(check_bitsandbytes())[2] == "bitsandbytes computes wrong 4-bit products"


@pytest.mark.parametrize(
    ("answer", "text", "problem"),
    [
        ({"name": "me"}, "logged in as me", False),
        (401, "the Hub answered 401", True),
        (500, "the Hub answered 500", False),
        (OSError("no network"), "the Hub can't be reached (OSError)", False),
    ],
)
def test_the_hub(answer: Any, text: str, problem: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def whoami() -> Any:
        if isinstance(answer, dict):
            return answer
        if isinstance(answer, int):
            error = HfHubHTTPError.__new__(HfHubHTTPError)
            error.response = type("Response", (), {"status_code": answer})()  # type: ignore[assignment]
            raise error
        raise answer

    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    monkeypatch.setattr(huggingface_hub, "whoami", whoami)
    _, actual, trouble = next(check_hub())
    assert text in actual
    assert (trouble is not None) is problem
    assert "hf_x" not in actual
