"""PEFT adapters (LoRA, (IA)³) as experts: opened over their base, never copied out.

`settings.py` reads `adapter_config.json` and refuses other methods by name, `parts.py` finds the
modules, `changes.py` is the mathematics, `fitting.py` puts an adapter on its base, `view.py` is the
checkpoint that comes out and `folder.py` its configuration; `vectors.py` takes (IA)³ vectors alone.
"""

from .fitting import open_expert
from .ia3 import VectorFamily, vector_family, why_not
from .settings import is_adapter
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
