"""Write docs/reference/options.md from the config classes (`make docs`); a test checks that the page is current."""

import dataclasses
import inspect
import re
from pathlib import Path
from typing import Any, get_type_hints

from transformers import TrainingArguments

from hf_align.algorithms import ALGORITHMS
from hf_align.experiments.benchmark.config import BenchmarkConfig, Budget
from hf_align.experiments.improvement.config import ImprovementConfig
from hf_align.feedback.collection.config import CollectionConfig
from hf_align.feedback.constitution.config import ConstitutionConfig
from hf_align.fields import allowed_values
from hf_align.trainers.hybrid.config import HybridConfig

PAGE = Path(__file__).parent / "reference" / "options.md"
CONFIGS = tuple(algorithm.load()[1] for algorithm in ALGORITHMS.builtin.values())
INTRODUCTION = """\
# Options

<!-- Written by `make docs` from the config classes: edit the fields' help there. -->

Every trainer's config is a `transformers.TrainingArguments` with the options below. What each trainer makes of that
class's own options is in [a table](training-arguments.md). In a recipe and on the command line the names are the same
(`beta: 0.1`, `--beta 0.1`). The last sections have the options of `hf-align hybrid`, `hf-align collect`,
`hf-align constitution`, `hf-align improve` and `hf-align benchmark`.
"""
FURTHER = (HybridConfig, CollectionConfig, ConstitutionConfig, ImprovementConfig, BenchmarkConfig, Budget)
"""Configs of other things than trainers."""


def reference() -> str:
    """Write the page: one section per class, base classes first."""
    classes: list[type] = []
    for config in CONFIGS:
        ours = [cls for cls in config.__mro__ if issubclass(cls, TrainingArguments) and _is_ours(cls)]
        classes += [cls for cls in reversed(ours) if cls not in classes]
    return INTRODUCTION + "".join(section(cls) for cls in (*classes, *FURTHER))


def _is_ours(cls: type) -> bool:
    return cls.__module__.startswith("hf_align")


def section(cls: type) -> str:
    """Write the options that `cls` adds to its base class, and the defaults that it changes."""
    bases = [base for base in cls.__bases__ if dataclasses.is_dataclass(base)]
    inherited = {field.name: field for base in reversed(bases) for field in dataclasses.fields(base)}
    names = " and ".join(f"`{base.__name__}`" for base in bases)
    added, changed = [], []
    for field in dataclasses.fields(cls):
        if field.name not in inherited:
            added.append((f"`{field.name}`", values_of(cls, field), code(default(field)), help_text(field)))
        elif default(field) != default(inherited[field.name]):
            before = code(default(inherited[field.name]))
            changed.append((f"`{field.name}`", code(default(field)), before, help_text(field)))
    about = re.split(r"\n\n(?:Raises|Example):", str(inspect.getdoc(cls)))[0]
    text = f"\n## {cls.__name__}\n\n{about}\n" + (f"Builds on {names}.\n" if bases else "")
    if added:
        text += "\n" + table(("Option", "Type", "Default", "Meaning"), added)
    if changed:
        text += "\n" + table(("Changed default", "Here", f"In {names}", "Meaning"), changed)
    return text


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Lay out a Markdown table."""
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def code(text: str) -> str:
    """Mark `text` as code for a table cell."""
    return f"`{text}`".replace("|", "\\|")


def values_of(cls: type, field: dataclasses.Field[Any]) -> str:
    """A field's type, and the range of its values where it has one."""
    text = code(type_name(field))
    if "range" not in field.metadata:
        return text
    return f"{text}, {allowed_values(field, get_type_hints(cls)[field.name]).removesuffix(' or None')}"


def type_name(field: dataclasses.Field[Any]) -> str:
    """A field's type as it is written in the source."""
    written = field.type if isinstance(field.type, str) else inspect.formatannotation(field.type)
    return written.replace("typing.", "")


def default(field: dataclasses.Field[Any]) -> str:
    """A field's default as Python."""
    if field.default_factory is not dataclasses.MISSING:
        return repr(field.default_factory())
    return "required" if field.default is dataclasses.MISSING else repr(field.default)


def help_text(field: dataclasses.Field[Any]) -> str:
    """A field's help on one line."""
    return " ".join(field.metadata["help"].split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(reference(), encoding="utf-8")
    print(f"Wrote {PAGE}")
