"""The pages' command lines, recipes and make targets are valid."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from peft import LoraConfig

from hf_align.algorithms import ALGORITHMS
from hf_align.cli.parser import build_parser
from hf_align.cli.table import COMMANDS
from hf_align.experiments.benchmark.config import BenchmarkConfig
from hf_align.experiments.benchmark.grid import KEYS as BENCHMARK_KEYS
from hf_align.experiments.collection import KEYS
from hf_align.experiments.constitution import CONSTITUTION_KEYS
from hf_align.experiments.hybrid import KEYS as HYBRID_KEYS
from hf_align.experiments.improvement.config import ImprovementConfig
from hf_align.experiments.improvement.recipe import KEYS as IMPROVEMENT_KEYS
from hf_align.experiments.recipe import SOURCE_KEYS, check_recipe, check_values, field_hints, read_recipe
from hf_align.feedback import CollectionConfig, ConstitutionConfig
from hf_align.trainers import DPOConfig, HybridConfig
from tests.docs.pages import DOCS, ROOT, blocks

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "notebooks" / "README.md", *sorted(DOCS.rglob("*.md"))]
RECIPES_OF = {
    "collect": {**KEYS, **field_hints(CollectionConfig)},
    "constitution": {**CONSTITUTION_KEYS, **field_hints(ConstitutionConfig)},
    "benchmark": {**BENCHMARK_KEYS, **field_hints(BenchmarkConfig)},
    "improve": {**SOURCE_KEYS, **IMPROVEMENT_KEYS, **field_hints(ImprovementConfig), **field_hints(DPOConfig)},
}
"""Keys of recipes of other commands than those that train."""
for _algorithm in ("ppo", "dpo"):  # whose options are shared by stages
    RECIPES_OF.setdefault("hybrid", {}).update(field_hints(ALGORITHMS[_algorithm].load()[1]))
RECIPES_OF["hybrid"].update({**HYBRID_KEYS, **field_hints(HybridConfig)})
RECIPES_OF["moving-reference"] = {**SOURCE_KEYS, **field_hints(DPOConfig)}
RECIPES_OF["judge"] = RECIPES_OF["collect"]  # the page shows judges as annotators
NAMES = {command.name for command in COMMANDS}
RUN = {  # the test that runs a page's Python blocks in order
    "README.md": "docs/test_code_blocks.py",
    "docs/index.md": "docs/test_site.py",
    "docs/migration/trl-dpo-reward.md": "docs/test_migration.py",
    "docs/migration/trl-ppo.md": "docs/test_migration.py",
    "docs/how-to/annotate.md": "feedback/test_how_to.py",
    "docs/how-to/augment.md": "data/test_augment.py",
    "docs/how-to/collect.md": "feedback/test_how_to.py",
    "docs/how-to/constitution.md": "feedback/test_how_to.py",
    "docs/how-to/data.md": "data/embedded/test_data_page.py",
    "docs/how-to/judge.md": "feedback/test_how_to.py",
    "docs/how-to/own-algorithm.md": "integration/test_own_algorithm.py",
    "docs/how-to/prepare-data.md": "collators/test_how_to.py",
    "docs/how-to/push.md": "hub/test_how_to.py",
    "docs/how-to/rollouts.md": "rollouts/test_how_to.py",
}
RUN |= {
    f"docs/how-to/{name}.md": "docs/test_code_blocks.py"
    for name in (
        "reward-model",
        "ensembles",
        "sft",
        "dpo-ipo",
        "losses",
        "moving-reference",
        "streaming",
        "search",
        "ppo",
        "online-dpo",
        "hybrid",
        "benchmark",
        "memory",
        "plan",
        "curves",
        "runs",
        "command-line",
        "acceleration",
        "score",
        "inspect-data",
        "choose",
        "convert",
        "export",
        "evaluate-reward",
        "evaluate-policy",
        "over-optimization",
        "resume",
    )
}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def shell_lines(page: Path) -> list[list[str]]:
    """The words of every line of a page's shell blocks and of its `hf-align ...` in running text."""
    text = page.read_text(encoding="utf-8")
    lines = [line for language, _, block in blocks(page) if not language for line in block.splitlines()]
    lines += re.findall(r"`((?:hf-align|make) [^`]*)`", text)
    lines = [re.split(r"\s{2,}|\s[>|]\s", line.strip())[0] for line in lines]
    return [shlex.split(line, comments=True) for line in lines if re.match(r"(hf-align|make) ", line)]


@each_page
def test_command_lines_are_understood(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for program, *words in shell_lines(page):
        if program == "make":
            assert {word for word in words if "=" not in word and word != "..."} <= targets, words
            continue
        if "--help" in words or len(words) == 1:  # only the command's name
            assert words[0] in NAMES or words[0] in ("COMMAND", "--help"), words
            continue
        options, fields = build_parser().parse_known_args(words)
        assert options.takes_fields or not fields, words
        if getattr(options, "config", None) and options.command in RECIPES_OF:
            if (ROOT / options.config).exists():
                check_values(read_recipe(str(ROOT / options.config), fields), RECIPES_OF[options.command], ())
        elif getattr(options, "config", None):
            name = getattr(options, "algorithm", "ppo" if options.command == "sweep" else options.command)
            algorithm, recipe = ALGORITHMS[name], read_recipe(str(ROOT / options.config), fields)
            check_recipe(recipe, algorithm.load()[1], LoraConfig, algorithm.needs, algorithm.rows)


@each_page
def test_yaml_is_a_part_of_a_recipe(page: Path, tmp_path: Path) -> None:
    for language, _, text in blocks(page):
        if language == "yaml":
            recipe = tmp_path / "recipe.yaml"
            if page.stem in RECIPES_OF:
                recipe.write_text(text, encoding="utf-8")
                if "principles:" not in text:  # a constitution
                    check_values(read_recipe(str(recipe), []), RECIPES_OF[page.stem], ())
                continue
            recipe.write_text(f"model: m\ntrain_dataset: d.jsonl\n{text}", encoding="utf-8")
            read = read_recipe(str(recipe), [])
            algorithm = ALGORITHMS[
                "ppo" if "reward" in read.values else "sft" if "prepare" in read.values else "reward"
            ]
            checked = check_recipe(read, algorithm.load()[1], LoraConfig, algorithm.needs, algorithm.rows)
            if algorithm.name != "ppo":
                continue
            rewards = checked.source["reward"]
            names = [each["reward"] for each in rewards] if isinstance(rewards, list) else [rewards]
            assert set(names) <= {"./out/reward", "rewards.py:politeness"}


@each_page
def test_python_is_run_by_a_test(page: Path) -> None:
    python = [info for language, info, _ in blocks(page) if language == "python" and "before" not in info]
    name = page.relative_to(ROOT).as_posix()
    if page.parent == DOCS / "concepts":  # test_concepts.py runs all of them
        return
    assert bool(python) == (name in RUN), f"no test runs the code of {name}, or RUN names one too many"
    if python:
        test = (ROOT / "tests" / RUN[name]).read_text(encoding="utf-8")
        assert f'"{page.name}"' in test or f'"{page.stem}.md"' in test or f'"{name}"' in test
