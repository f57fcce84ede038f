"""How prompts and responses are laid out for a model: branches, what they cost, and whether a model honours them."""

from hf_align.layout.branches import Branches, build_branches

__all__ = ["Branches", "build_branches"]
