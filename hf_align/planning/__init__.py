"""Estimates of a run's resources, and checks of this machine."""
