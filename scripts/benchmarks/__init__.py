"""Measurements of the project: `scripts/bench` runs them."""
