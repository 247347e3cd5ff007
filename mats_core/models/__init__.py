"""Modules that can be asked: transformers is imported in this room alone, and on first use.

From a checkpoint directory to an `nn.Module`, and from a task's rows to what it is called with.
"""

import warnings

from . import batches
from .anatomy import anatomy
from .architecture import class_for, saved_names, ties_word_embeddings
from .choosing import Choosing, change, seen_inputs
from .fitting import Asking, check, depth_notes
from .images import pixel_values
from .inputs import BATCH, Rows, ask, encode
from .kinds import facts_of, reads_of
from .modules import (
    Forward,
    build,
    features,
    forward,
    parameter_names,
    tensors_of,
    with_names,
)
from .probing import probe
from .replaying import Again, Ahead, Outputs
from .routing import MASK, Branches, Router, Routing, by_example, joined, mean_token, noting, parted
from .saving import save_settings
from .settings import settings_digest
from .sizes import shapes_of
from .tokens import IGNORED

__all__ = [
    "BATCH", "IGNORED", "MASK", "Again", "Ahead", "Asking", "Branches", "Choosing", "Forward",
    "Outputs", "Router", "Routing", "Rows", "anatomy", "ask", "batches", "build", "by_example",
    "change", "check", "class_for", "depth_notes", "encode", "facts_of", "features", "forward",
    "joined", "mean_token", "noting", "parameter_names", "parted", "pixel_values", "probe",
    "reads_of", "save_settings", "saved_names", "seen_inputs", "settings_digest", "shapes_of",
    "tensors_of", "ties_word_embeddings", "with_names",
]  # fmt: skip

# Of bars that transformers would draw in a notebook without ipywidgets; this library's need none.
warnings.filterwarnings("ignore", message="IProgress not found")
