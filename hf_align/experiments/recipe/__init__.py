"""Recipes: a YAML file plus flags, checked key by key against the command's config before anything is loaded.

A recipe is flat. A few keys name the models and data (`SOURCE_KEYS`); every other key is a field of the command's
config class. `lora` may be `true` or a mapping of `peft.LoraConfig` fields, `augment` is one of `AUGMENT_KEYS`,
`prepare` may be `true` or one of `PREPARE_KEYS`. Flags have the same names and override the file:
`--learning_rate 1e-5`, `--lora.r 32`.
"""

from hf_align.experiments.recipe.checks import CheckedRecipe, check_given, check_recipe, check_values, missing_key
from hf_align.experiments.recipe.keys import AUGMENT_KEYS, PREPARE_KEYS, SOURCE_KEYS, field_hints, source_keys
from hf_align.experiments.recipe.reading import Recipe, read_recipe, read_value
from hf_align.experiments.recipe.writing import dump_recipe

__all__ = [
    "AUGMENT_KEYS",
    "PREPARE_KEYS",
    "SOURCE_KEYS",
    "CheckedRecipe",
    "Recipe",
    "check_given",
    "check_recipe",
    "check_values",
    "dump_recipe",
    "field_hints",
    "missing_key",
    "read_recipe",
    "read_value",
    "source_keys",
]
