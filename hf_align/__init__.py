"""Alignment training inside the Hugging Face Trainer."""

__version__ = "0.1.0"
