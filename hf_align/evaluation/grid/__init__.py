"""Results of `hf-align benchmark`: algorithms on data sets with several seeds, read from the files of finished runs."""

from hf_align.evaluation.grid.results import PAGE, Results, read_results
from hf_align.evaluation.grid.runs import BASE, FAILED, RESULT, Cell

__all__ = ["BASE", "FAILED", "PAGE", "RESULT", "Cell", "Results", "read_results"]
