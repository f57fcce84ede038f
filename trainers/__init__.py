"""Trainers: `transformers.Trainer` subclasses for reward models, PPO, DPO and IPO."""
