"""Rollouts in the training step, for PPO and online DPO: options, schedule, scoring, evaluation, checkpoints."""
