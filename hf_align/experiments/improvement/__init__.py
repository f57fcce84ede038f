"""Self-improvement in rounds: a policy's own samples, judged, become the pairs that it is trained on."""
