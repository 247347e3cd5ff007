"""TODO."""

from . import hub
from .contents import TensorEntry, all_finite, checksum
from .files import Checkpoint
from .reading_ahead import Buffers, Wanted
from .writer import (
    SHARD_BYTES,
    CheckpointWriter,
    Spec,
    TensorFileWriter,
    config_files,
    partial_of,
    refuse_existing,
    staged_directory,
    staged_file,
    write_atomically,
)

__all__ = [
    "SHARD_BYTES",
    "Buffers",
    "Checkpoint",
    "CheckpointWriter",
    "Spec",
    "TensorEntry",
    "TensorFileWriter",
    "Wanted",
    "all_finite",
    "checksum",
    "config_files",
    "hub",
    "partial_of",
    "refuse_existing",
    "staged_directory",
    "staged_file",
    "write_atomically",
]
