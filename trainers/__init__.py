"""Trainers: `transformers.Trainer` subclasses for reward models, DPO and IPO."""
