"""A checked recipe written with every option in effect."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from hf_align.experiments.recipe.checks import CheckedRecipe
from hf_align.fields import as_written
from hf_align.yaml_text import dump_yaml


def dump_recipe(checked: CheckedRecipe, config_class: type, hidden: Iterable[str] = ()) -> str:
    """Write a recipe as YAML with every option in effect; `read_recipe` reads it back to the same run.

    Explicit values come first, then the other options at their defaults, ours before those of transformers. A token is
    left out.

    Args:
        checked: From `check_recipe`.
        config_class: The command's config dataclass.
        hidden: Options whose defaults are left out.
    """
    written = {key: value for key, value in checked.source.items() if value is not None}
    if checked.lora is not None:
        written["lora"] = checked.lora or True
    text = dump_yaml({**written, **{key: value for key, value in checked.config.items() if key != "hub_token"}})
    foreign = next(cls for cls in config_class.__mro__ if not cls.__module__.startswith("hf_align"))
    ours = {name for cls in config_class.__mro__[: config_class.__mro__.index(foreign)] for name in cls.__annotations__}
    left_out = {*checked.config, "hub_token", *hidden}
    rest = [field for field in dataclasses.fields(config_class) if field.init and field.name not in left_out]
    for owner, is_ours in ((config_class, True), (foreign, False)):
        if values := {field.name: _default(field) for field in rest if (field.name in ours) is is_ours}:
            text += f"\n# defaults of {owner.__name__}\n{dump_yaml(values)}"
    return text


def _default(field: dataclasses.Field[Any]) -> Any:
    value = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return as_written(value)
