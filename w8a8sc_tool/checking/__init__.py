"""Whether a directory is what it should be: `verify` alone, `tree` with its other sizes, `compare` with another one.

A job plans tasks and collects findings; its worker (`verify_worker`, `compare_worker`) reads, hashes and decodes. A
finding names what is wrong and where. What could not be checked is listed, never passed over. Nothing is written.
"""
