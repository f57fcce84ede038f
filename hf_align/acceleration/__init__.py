"""Patches: faster or leaner implementations of operations in transformers and peft, one per file."""
