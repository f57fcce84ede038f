"""What a run takes before it is started, which algorithm suits it, and checks of this machine."""

from typing import TYPE_CHECKING

from hf_align.lazy import lazy_names

if TYPE_CHECKING:
    from hf_align.planning.planner import Plan as Plan, plan as plan
    from hf_align.planning.selection.needs import NEEDS as NEEDS
    from hf_align.planning.selection.recipe import plan_choice as plan_choice
    from hf_align.planning.selection.resources import Resources as Resources
    from hf_align.planning.selection.select import (
        Recommendation as Recommendation,
        select_algorithm as select_algorithm,
    )

HOMES = {
    "planner": ("Plan", "plan"),
    "selection.needs": ("NEEDS",),
    "selection.recipe": ("plan_choice",),
    "selection.resources": ("Resources",),
    "selection.select": ("Recommendation", "select_algorithm"),
}
"""Public names by module; imported on first use, since the command line's parser needs the list of needs alone."""
__getattr__, __dir__ = lazy_names("hf_align.planning", HOMES)
__all__ = ["NEEDS", "Plan", "Recommendation", "Resources", "plan", "plan_choice", "select_algorithm"]
