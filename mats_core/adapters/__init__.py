"""PEFT adapters (LoRA, (IA)³) as experts: opened over their base, never copied out.

`settings.py` reads `adapter_config.json` and refuses other methods by name, `parts.py` finds the
modules, `changes.py` is the mathematics, `fitting.py` puts an adapter on its base, `view.py` is the
checkpoint that results and `config.py` its configuration; `ia3.py` merges (IA)³ vectors alone, and
`writing.py` makes one LoRA of a merge.
"""

from .fitting import open_expert
from .ia3 import VectorFamily, vector_family, why_not
from .settings import CONFIG, WEIGHTS, is_adapter
from .view import Adapted, Vector, factors_of, rank_of
from .writing import Lora, Places, factored, most_bytes, names_in_model, takes_factors

__all__ = [
    "CONFIG", "WEIGHTS", "Adapted", "Lora", "Places", "Vector", "VectorFamily", "factored",
    "factors_of", "is_adapter", "most_bytes", "names_in_model", "open_expert", "rank_of",
    "takes_factors", "vector_family", "why_not",
]  # fmt: skip
