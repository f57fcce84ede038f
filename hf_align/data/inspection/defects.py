"""The section "defects" of an inspection: what a row shows by itself, or beside the data set's habit."""

from __future__ import annotations

from collections.abc import Callable

from hf_align.data.inspection import defect_kinds
from hf_align.data.inspection.ends import Ends
from hf_align.data.inspection.findings import Kind
from hf_align.data.inspection.records import Check, Context
from hf_align.data.inspection.refused import Refused
from hf_align.data.inspection.signs import Signs

KINDS = tuple(value for value in vars(defect_kinds).values() if isinstance(value, Kind))
CHECKS: tuple[Callable[[Context], Check], ...] = (Refused, Signs, Ends)
