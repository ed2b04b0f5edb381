"""Compressing through msmodelslim: everything the project knows of calling it.

installed    is it there, and which executor: `choose` decides between it and the native backend
compressor   one module through it: export, start, read back, compare with the source
helper       the process that imports msmodelslim (torch, transformers) and nothing else does
executor     the program it starts for each tensor, with this project's codec in place of CANN's
"""
