"""What users run, one file per command: options in, a result out, everything that can be refused refused first.

    compress, reshard, batch (batch_ray)    make directories, through `conversion`
    inspect, generate, serving, doctor      look at them and use them
    card (card_origin, card_text)           what is published with them
    device                                  compares an NPU with this machine's processors

verify and compare are in `checking`, because the engine below reads back what it wrote. Nothing here knows click.
"""
