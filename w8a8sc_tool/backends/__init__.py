"""Who compresses a module's weight, and how a plan's other tensors are made.

    produce      blocks of an output tensor, from rows of its sources
    native       the codec, with every tile encoded once for all sizes (`tiles`, `shards`)
    msmodelslim/ the vendor's compressor: how it is called, its executor, and the check of what it made

A backend does what a plan says, block by block, and writes nothing itself.
"""
