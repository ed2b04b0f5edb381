"""Models by the names that hubs give them: found in the caches of ModelScope and Hugging Face.

`locate` makes a folder of a path or a name. Caches are read without the hubs' packages and without network.
"""
