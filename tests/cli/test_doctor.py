from typing import Any

import pytest

from hf_align.cli.main import main
from hf_align.planning import machine as doctor


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.huggingface_hub, "get_token", lambda: None)
    monkeypatch.setattr(doctor, "MATRIX", 64)  # some processors take seconds for a large product in bfloat16


def test_this_machine_is_well(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_DISK", 0)
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


def test_problems_are_listed_with_status_2(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> float:
        raise RuntimeError("no kernel image\nmore")

    monkeypatch.setattr(doctor, "quantisation_error", broken)
    monkeypatch.setattr(doctor, "requires", lambda name: ["torch>=99", 'gguf; extra == "gguf"'])
    monkeypatch.setattr(doctor, "LITTLE_DISK", 1 << 60)
    assert main(["doctor"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is not >=99" in error
    assert "can't compute in 4 bits here (no kernel image)" in error
    assert "GiB free" in error


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    there = doctor.installed_version
    monkeypatch.setattr(doctor, "installed_version", lambda name: None if name in ("peft", "gguf") else there(name))
    found = {name: (text, problem) for name, text, problem in doctor.check_versions()}
    assert found["peft"][1] == "peft is not installed: pip install hf-align"
    assert "without gguf" in found["quickstart"][0]
    assert found["quickstart"][1] is None


def test_wrong_products_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0.01 < doctor.quantisation_error() < doctor.QUANTISATION_ERROR
    monkeypatch.setattr(doctor, "quantisation_error", lambda: float("nan"))
    assert next(doctor.check_bitsandbytes())[2] == "bitsandbytes computes wrong 4-bit products"


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
            error = doctor.HfHubHTTPError.__new__(doctor.HfHubHTTPError)
            error.response = type("Response", (), {"status_code": answer})()  # type: ignore[assignment]
            raise error
        raise answer

    monkeypatch.setattr(doctor.huggingface_hub, "get_token", lambda: "hf_x")
    monkeypatch.setattr(doctor.huggingface_hub, "whoami", whoami)
    _, found, trouble = next(doctor.check_hub())
    assert text in found
    assert (trouble is not None) is problem
    assert "hf_x" not in found
