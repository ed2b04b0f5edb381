"""One file per architecture: a table in the words of `layouts.words`, found by listing this folder."""
