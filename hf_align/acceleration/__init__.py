"""Faster or leaner ways to compute what transformers and peft compute: a file each."""
