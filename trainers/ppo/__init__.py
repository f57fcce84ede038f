"""PPO: rollouts, their experience, the loss and the trainer, one file each."""
