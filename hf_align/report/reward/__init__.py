"""The report on a reward model."""
