"""Every public class has an example, and the examples run."""

from __future__ import annotations

import doctest
import importlib
import inspect
import linecache
from pathlib import Path
from types import ModuleType

import pytest

import hf_align

ROOMS = (
    *("collators", "data", "evaluation", "feedback", "hub", "layout", "losses", "model_cards"),
    *("rewards", "rl", "rollouts", "tracking", "trainers"),
)
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"


class ShownOutput(doctest.OutputChecker):
    """Lines without shown output may print anything, such as Trainer's logs."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return not want or super().check_output(want, got, optionflags)


def public_classes() -> list[type]:
    """Public classes of `hf_align` and its rooms."""
    modules = [hf_align, *(importlib.import_module(f"hf_align.{room}") for room in ROOMS)]
    values = [getattr(module, name) for module in modules for name in module.__all__]
    return list(dict.fromkeys(value for value in values if inspect.isclass(value)))


def modules_with_examples() -> list[ModuleType]:
    root = Path(hf_align.__file__).parents[1]
    packages = [root / name for name in ("hf_align", "trainers", "collators", "model_cards")]
    files = [file for package in packages for file in sorted(package.rglob("*.py")) if ">>> " in file.read_text()]
    parts = [file.relative_to(root).with_suffix("").parts for file in files]
    return [importlib.import_module(".".join(("hf_align", *[p for p in name if p != "hf_align"]))) for name in parts]


@pytest.mark.parametrize("public", public_classes(), ids=lambda public: public.__name__)
def test_a_public_class_has_an_example(public: type):
    assert ">>> " in (public.__doc__ or ""), f"{public.__name__} shows no example"


@pytest.mark.parametrize("module", modules_with_examples(), ids=lambda module: module.__name__)
def test_examples_run(module: ModuleType, shallow_model_dir: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`MODEL` is a folder with a tiny model here."""
    (tmp_path / MODEL).parent.mkdir()
    (tmp_path / MODEL).symlink_to(shallow_model_dir)
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(ShownOutput(), optionflags=doctest.ELLIPSIS)
    printed: list[str] = []
    linecache.clearcache()  # the runner looks for changes of every file in it, for each example
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, globs={}):
        runner.run(test, out=printed.append)
    assert not runner.failures, "".join(printed)
