"""Package discovery only; everything else about the build stands in pyproject.toml.

Some packages stand at the top of the repository but install below ``hf_align`` (`trainers/` becomes
`hf_align.trainers`). pyproject.toml can't state that and discover packages at the same time, this can.
"""

from setuptools import find_packages, setup

INSTALLED_BELOW_HF_ALIGN = ("trainers", "collators", "model_cards")

packages = find_packages(include=["hf_align", "hf_align.*"])
for name in INSTALLED_BELOW_HF_ALIGN:
    packages += [f"hf_align.{package}" for package in find_packages(include=[name, f"{name}.*"])]

setup(
    packages=packages,
    package_dir={"hf_align": "hf_align", **{f"hf_align.{name}": name for name in INSTALLED_BELOW_HF_ALIGN}},
)
