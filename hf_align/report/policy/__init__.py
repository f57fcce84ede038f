"""The report on policies."""
