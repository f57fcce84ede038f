"""What a run takes before it is started, and checks of this machine."""

from hf_align.planning.planner import Plan, plan

__all__ = ["Plan", "plan"]
