"""What users run, and the worker processes that do it."""
