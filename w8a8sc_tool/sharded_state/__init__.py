"""The sharded_state directory as a thing: writing, sealing, reading. It knows no models."""

from .directory import SealedDirectory, check_target, recover
from .journal import Journal, JournalEntry, JournalTensor, refuse_other
from .manifest import FileEntry, LayerEntry, Manifest, RankEntry, TensorEntry
from .rank_file import RankFile
from .reader import ShardedState

__all__ = [
    "FileEntry",
    "Journal",
    "JournalEntry",
    "JournalTensor",
    "LayerEntry",
    "Manifest",
    "RankEntry",
    "RankFile",
    "SealedDirectory",
    "ShardedState",
    "TensorEntry",
    "check_target",
    "recover",
    "refuse_other",
]
