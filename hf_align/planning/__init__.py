"""What a run would take, and what this machine has."""
