"""The result of `pip install hf-align`: built as a wheel, installed in a clean environment, imported there."""

import ast
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.tiny import save_tiny

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    "hf_align": ROOT / "hf_align",
    "hf_align/trainers": ROOT / "trainers",
    "hf_align/collators": ROOT / "collators",
    "hf_align/model_cards": ROOT / "model_cards",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

IMPORT_ALL = """
import importlib, pkgutil, hf_align
modules = [module.name for module in pkgutil.walk_packages(hf_align.__path__, "hf_align.")]
modules = [name for name in modules if not name.endswith("__main__")]
for name in modules:
    importlib.import_module(name)
print(hf_align.__file__, *modules)
"""

PRINT_SITE_PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"


def modules_in_tree() -> set[str]:
    """The dotted import name of every module in the repository."""
    names = set()
    for installed_as, folder in SOURCES.items():
        for file in folder.rglob("*.py"):
            parts = [*installed_as.split("/"), *file.relative_to(folder).with_suffix("").parts]
            names.add(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
    return {name for name in names if not name.endswith("__main__")}


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel built from the sdist built from a copy of the sources, so that a file missing in either shows."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("hf_align", "trainers", "collators", "model_cards"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", copy / "dist", copy, cwd=copy)
    return next((copy / "dist").glob("*.whl"))


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that has the wheel, and the dependencies from this one by a path entry."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    python = environment / "bin" / "python"
    site_packages = Path(run(python, "-c", PRINT_SITE_PACKAGES, cwd=environment).strip())
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=environment)
    # A path entry, unlike a site directory, doesn't process the .pth files in it: the editable install stays out.
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return python


@pytest.fixture(scope="module")
def used(clean_python: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run README's code in a new process, as after `pip install hf-align`, with a model in place of the quickstart's,
    then import every module. Return the folder it ran in, and the last printed line.
    """
    folder = tmp_path_factory.mktemp("used")
    save_tiny(folder / "hf-align-quickstart" / "base", num_hidden_layers=1)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    quick = "import gc; gc.disable()"  # imports create no garbage, and collecting takes a fifth of their time
    printed = run(clean_python, "-c", "\n".join([quick, *blocks, IMPORT_ALL]), cwd=folder)
    return folder, printed.splitlines()[-1]


def test_every_module_imports_from_the_installed_wheel(clean_python: Path, used: tuple[Path, str]):
    file, *modules = used[1].split()
    assert Path(file).is_relative_to(clean_python.parents[1])
    assert {"hf_align", *modules} == modules_in_tree()


def test_the_command_runs_from_the_installed_wheel(clean_python: Path, tmp_path: Path):
    assert "quickstart" in run(clean_python.with_name("hf-align"), "--help", cwd=tmp_path)


def test_readmes_code_runs_from_the_installed_wheel(used: tuple[Path, str]):
    out = used[0] / "out"
    assert {path.name for path in out.iterdir()} == {"dpo", "ppo"}
    assert (out / "ppo" / "value_head.safetensors").exists()


def test_the_wheel_installs_one_name(wheel: Path):
    top_level = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in top_level if not name.endswith(".dist-info")} == {"hf_align"}


def test_the_wheel_holds_the_data_with_its_licence_and_every_other_file(wheel: Path):
    packed = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"{installed_as}/{file.relative_to(folder).as_posix()}"
        for installed_as, folder in SOURCES.items()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert expected <= packed
    data = [name for name in expected if name.startswith("hf_align/data/")]
    assert any(name.endswith(".parquet") for name in data)
    assert any("LICEN" in name.upper() for name in data)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in packed)


def declared_requirements() -> list[Requirement]:
    texts = [*PROJECT["dependencies"], *(text for extra in PROJECT["optional-dependencies"].values() for text in extra)]
    return [requirement for requirement in map(Requirement, texts) if requirement.name != PROJECT["name"]]


def imported_packages(file: Path) -> set[str]:
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.append(node.module or "")
    return {name.split(".")[0] for name in names}


def test_every_imported_package_is_a_declared_dependency():
    declared = {canonicalize_name(requirement.name) for requirement in declared_requirements()}
    providers = packages_distributions()
    undeclared = {
        f"{file.relative_to(ROOT)} imports {package}"
        for folder in SOURCES.values()
        for file in folder.rglob("*.py")
        for package in imported_packages(file) - sys.stdlib_module_names - {"hf_align"}
        if not declared & {canonicalize_name(name) for name in providers.get(package, [])}
    }
    assert not undeclared


def test_what_ci_installs_lies_within_the_declared_ranges():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {}
    for pinned in (Requirement(line) for line in lines if line and not line.startswith("#")):
        (pins[canonicalize_name(pinned.name)],) = (specifier.version for specifier in pinned.specifier)
    outside = [
        f"{requirement}, pinned at {pins.get(canonicalize_name(requirement.name))}"
        for requirement in declared_requirements()
        if not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "0"))
    ]
    assert not outside
