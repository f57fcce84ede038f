"""The benchmark: algorithms x data sets x seeds under an equal budget, each run in a process of its own."""
