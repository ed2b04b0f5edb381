"""What `scripts/torture` does."""
