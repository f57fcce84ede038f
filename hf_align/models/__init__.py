"""Models: loading with quantisation and LoRA, and the modules for training."""
