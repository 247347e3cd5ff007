"""Named tensors wherever they lie: reading, checking, renaming and writing checkpoints.

`Weights` is what the library asks of them, in files or in memory.  Files are read lazily and by
position, never memory-mapped; what is written appears whole or not at all (`staging.py`).
"""

from . import hub
from .contents import TensorEntry, checksum
from .files import Checkpoint
from .in_memory import InMemory
from .place import refuse_existing, require_file, require_folder, what_lies
from .reading_ahead import Buffers, Wanted
from .renamed import Renamed, original
from .source import Entry, Shaped, Tensors, Weights, all_finite
from .staging import MARK, partial_of, staged_directory, staged_file, write_atomically
from .wrappers import inside, unwrapped
from .writer import SHARD_BYTES, CheckpointWriter, Spec, TensorFileWriter, config_files

__all__ = [
    "MARK", "SHARD_BYTES", "Buffers", "Checkpoint", "CheckpointWriter", "Entry", "InMemory",
    "Renamed", "Shaped", "Spec", "TensorEntry", "TensorFileWriter", "Tensors", "Wanted", "Weights",
    "all_finite", "checksum", "config_files", "hub", "inside", "original", "partial_of",
    "refuse_existing", "require_file", "require_folder", "staged_directory", "staged_file",
    "unwrapped", "what_lies", "write_atomically",
]  # fmt: skip
