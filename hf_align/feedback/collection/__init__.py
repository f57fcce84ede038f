"""The loop that collects preferences: prompts of a round, responses, pairs, annotators, validation."""
