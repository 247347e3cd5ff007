"""Named tensors wherever they lie: reading, checking, renaming and writing checkpoints.

`Weights` is what the library asks of them, in files or in memory.  Files are read lazily and by
position, never memory-mapped; what is written appears whole or not at all (`staging.py`).
"""

from . import hub
from .card import (
    CARD,
    StatedScore,
    front_matter,
    stated_bases,
    stated_classes,
    stated_data,
    stated_licence,
    stated_scores,
)
from .companions import carry, companions
from .configuration import read_config
from .contents import TensorEntry, checksum
from .dropped import Dropped, receive
from .files import Checkpoint
from .hub_data import CachedData, cached_data, snapshot_of
from .in_memory import InMemory
from .optimizer_file import Moment, SecondMoments
from .permuted import Ordering, Permuted
from .place import refuse_existing, require_file, require_folder, what_lies
from .quantised import left_over, quantisation, require_numbers, unquantised
from .reading_ahead import Buffers, Wanted
from .renamed import Renamed, stem_of
from .search import Limits, ListedModel, ModelSearch, search_models
from .source import Entry, Shaped, Tensors, Weights, all_finite
from .staging import MARK, partial_of, staged_directory, staged_file, write_atomically
from .view import original
from .wrappers import inside, unwrapped
from .writer import (
    SHARD_BYTES,
    CheckpointWriter,
    Spec,
    TensorFileWriter,
    config_files,
    write_tensors,
)

__all__ = [
    "CARD", "MARK", "SHARD_BYTES", "Buffers", "CachedData", "Checkpoint", "CheckpointWriter",
    "Dropped", "Entry", "InMemory", "Limits", "ListedModel", "ModelSearch", "Moment", "Ordering",
    "Permuted", "Renamed", "SecondMoments", "Shaped", "Spec", "StatedScore", "TensorEntry",
    "TensorFileWriter", "Tensors", "Wanted", "Weights", "all_finite", "cached_data", "carry",
    "checksum", "companions", "config_files", "front_matter", "hub", "inside", "left_over",
    "original", "partial_of", "quantisation", "read_config", "receive", "refuse_existing",
    "require_file", "require_folder", "require_numbers", "search_models", "snapshot_of",
    "staged_directory", "staged_file", "stated_bases", "stated_classes", "stated_data",
    "stated_licence", "stated_scores", "stem_of", "unquantised", "unwrapped", "what_lies",
    "write_atomically", "write_tensors",
]  # fmt: skip
