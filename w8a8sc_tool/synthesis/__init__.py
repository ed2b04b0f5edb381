"""Checkpoints to try things on: random weights as wide as each published recipe makes them, of any size.

`synthesize` writes what msmodelslim would (names, types, dtypes, file modes); `tokenizer` a small tokenizer that
transformers and the bundled runtime take.
"""
