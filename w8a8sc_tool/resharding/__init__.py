"""A directory read as the checkpoint it was made of, so that it can be cut for another size or written back.

`source` assembles source tensors from the ranks' rows, decoding what is compressed, and hands out tiles as they are
where a cut does not go through them. It checks every byte against the manifest before it is used.
"""
