"""Studies of preferences from people, simulated by the embedded ratings; figures in docs/results/feedback.md."""
