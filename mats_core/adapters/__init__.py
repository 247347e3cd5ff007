"""PEFT adapters (LoRA, (IA)³) as experts: opened over their base, never copied out.

`settings.py` reads `adapter_config.json` and refuses other methods by name, `parts.py` finds the
modules, `changes.py` is the mathematics, `fitting.py` puts an adapter on its base, `view.py` is the
checkpoint that results and `config.py` its configuration; `ia3.py` merges (IA)³ vectors alone.
"""

from .fitting import open_expert
from .ia3 import VectorFamily, vector_family, why_not
from .settings import is_adapter
from .view import Adapted, Vector

__all__ = [
    "Adapted", "Vector", "VectorFamily", "is_adapter", "open_expert", "vector_family", "why_not",
]  # fmt: skip
