"""TODO."""

from . import memory, speeds
from .folders import cache_folder, results_folder
from .memory import available_memory, parse_bytes
from .remember import ByContent, Memo, forgetful
from .speeds import (
    ACTIVATION,
    CALL,
    EIGH,
    GEMM,
    HISTOGRAM,
    OPENING,
    RANDOM,
    STREAM,
    SVD,
    UNMEASURED,
    Rates,
    Work,
)
from .threads import set_waiting

__all__ = [
    "ACTIVATION",
    "CALL",
    "EIGH",
    "GEMM",
    "HISTOGRAM",
    "OPENING",
    "RANDOM",
    "STREAM",
    "SVD",
    "UNMEASURED",
    "ByContent",
    "Memo",
    "Rates",
    "Work",
    "available_memory",
    "cache_folder",
    "forgetful",
    "memory",
    "parse_bytes",
    "results_folder",
    "set_waiting",
    "speeds",
]
