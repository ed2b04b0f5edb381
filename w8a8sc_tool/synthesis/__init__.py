"""Checkpoints to try things on: random weights as wide as each published recipe makes them, of any size.

    synthesize  the command: arguments checked, config.json made, the layout asked what the checkpoint consists of
    models      presets: sizes of published models, what their recipes do
    maker       values for every tensor that the layout asks for
    values      distributions as tables, a stream of random numbers per tensor
    writing     files with the names and modes that msmodelslim leaves
    tokenizer   a small tokenizer that transformers and the bundled runtime take

Names, shapes and types are the layout's: an architecture with a table there can be synthesized. The same arguments give
the same bytes on every machine.
"""
