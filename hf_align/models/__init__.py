"""Models: loading with quantisation and LoRA, and the modules that trainers train."""
