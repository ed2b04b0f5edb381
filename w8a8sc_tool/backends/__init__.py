"""Who compresses a tensor."""
