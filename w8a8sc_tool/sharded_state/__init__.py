"""The sharded_state directory as a thing: writing, sealing, reading. Of models it knows what a manifest may say.

    rank_file   a rank's file while it is written: where each tensor goes
    journal     what of an unfinished directory is durable
    directory   a directory that appears whole or not at all
    manifest    every byte of it, by hash; parsed as text that nobody vouches for
    meaning     what a manifest has to mean to be believed
    reader      opening one

docs/reliability.md states the promise that follows from the order in which files are written, synced and renamed.
"""

from .directory import SealedDirectory, check_access, check_target, partial_of, recover, standing
from .journal import Journal, JournalEntry, JournalTensor, refuse_other
from .manifest import FileEntry, LayerEntry, Manifest, RankFileEntry, TensorEntry
from .rank_file import RankFile
from .reader import ShardedState

__all__ = [
    "FileEntry",
    "Journal",
    "JournalEntry",
    "JournalTensor",
    "LayerEntry",
    "Manifest",
    "RankFile",
    "RankFileEntry",
    "SealedDirectory",
    "ShardedState",
    "TensorEntry",
    "check_access",
    "check_target",
    "partial_of",
    "recover",
    "refuse_other",
    "standing",
]
