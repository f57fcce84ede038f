"""Layout of prompts and responses: branches, their cost, and a check that a model honours them."""

from hf_align.layout.branches import Branches, build_branches

__all__ = ["Branches", "build_branches"]
