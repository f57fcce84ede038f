"""Online DPO and IPO: options, labels, pairs, rollouts and the trainer, one file each."""
