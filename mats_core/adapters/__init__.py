"""PEFT adapters (LoRA, (IA)³) as experts: opened over their base, never copied out.

`settings.py` reads `adapter_config.json` and refuses other methods by name, `parts.py` finds the
modules, `changes.py` is the mathematics, `fitting.py` puts an adapter on its base, `view.py` is the
checkpoint that comes out and `folder.py` its configuration; `vectors.py` takes (IA)³ vectors alone.
"""

from __future__ import annotations

from .fitting import open_expert
from .settings import is_adapter
from .vectors import VectorFamily, vector_family, why_not
from .view import Adapted, Vector

__all__ = [
    "Adapted",
    "Vector",
    "VectorFamily",
    "is_adapter",
    "open_expert",
    "vector_family",
    "why_not",
]
