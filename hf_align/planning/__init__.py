"""Estimates of what a run takes, and checks of this machine."""
