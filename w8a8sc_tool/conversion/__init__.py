"""The engine behind compress and reshard: plans in, sealed directories out.

Read in this order:

    conversion  the whole of it on one page: prepare, follow the schedule, seal, read back, publish
    schedule    which worker does what next, told as events: Made, Turn, Written
    draft       a directory until it is sealed: files, hashes, journal
    parts       which of a rank's files a module goes to
    earlier     what of a journal is believed
    recorder    what is durable already, and when it is said so in the journals
    messages    what travels between the parent and its workers
    worker      what a worker does: make a module's tensors, write them, hash them
    identity    what a source is, by content
    convert     around it: targets, what is done already, space on the disk

Guaranteed: the same bytes whatever the number of processes, interruptions and timing; nothing half-done at a target;
bounded memory. It knows nothing of vLLM or of the command line, and the parent never loads the kernels.
"""
