"""`import hf_align` is cheap, and still everything public is reachable from it."""

import ast
import logging
import pkgutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import hf_align

HEAVY = ("torch", "transformers", "peft", "trl", "datasets", "numpy", "scipy", "matplotlib")


def in_fresh_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_import_loads_nothing_heavy():
    code = f"import sys, hf_align; dir(hf_align); print([name for name in {HEAVY} if name in sys.modules])"
    assert in_fresh_python(code) == "[]"


def test_commands_that_read_and_write_rows_start_without_the_model_libraries():
    commands = ", ".join(f"hf_align.cli.commands.{name}" for name in ("convert", "export", "inspect"))
    heavy = "[name for name in ('torch', 'transformers') if name in sys.modules]"
    assert in_fresh_python(f"import sys, {commands}; print({heavy})") == "[]"


def test_a_kernel_that_is_never_used_is_not_missed(caplog: pytest.LogCaptureFixture):
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "No module named 'kernels'")
    logger.warning("Something else.")
    assert caplog.messages == ["Something else."]


@pytest.mark.parametrize("name", hf_align.__all__)
def test_every_public_name_is_what_its_module_defines(name):
    value = getattr(hf_align, name)
    assert value.__name__ == name
    assert value is getattr(import_module(value.__module__), name)


def test_a_submodule_is_imported_when_it_is_first_used():
    assert in_fresh_python("import hf_align; print(hf_align.errors.UserError.__name__)") == "UserError"
    assert in_fresh_python("import hf_align; print(hf_align.trainers.__name__)") == "hf_align.trainers"


def test_every_submodule_is_listed():
    in_folder = {module.name for module in pkgutil.iter_modules(hf_align.__path__) if not module.name.startswith("_")}
    assert set(hf_align._SUBMODULES) == in_folder | {"trainers", "collators", "model_cards"}


def test_dir_shows_names_that_are_not_imported_yet():
    assert {"DPOTrainer", "load_policy", "losses", "__version__"} <= set(dir(hf_align))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"hf_align.*NoSuchTrainer"):
        hf_align.NoSuchTrainer  # noqa: B018


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(hf_align.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in ast.walk(block) if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname or alias.name for node in imports for alias in node.names}
    assert seen == {*hf_align.__all__, *hf_align._SUBMODULES}
