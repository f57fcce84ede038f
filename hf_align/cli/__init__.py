"""The `hf-align` command."""
