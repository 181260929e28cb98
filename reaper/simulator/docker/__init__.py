"""A simulated Docker engine."""
