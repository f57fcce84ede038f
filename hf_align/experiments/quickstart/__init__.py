"""The quickstart: reward model, DPO, IPO and PPO on the embedded model and data, evaluated and reported."""
