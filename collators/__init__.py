"""Collators: rows of a preference data set become branch batches."""
