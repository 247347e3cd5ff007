"""A base and its experts: whether they fit, and what each of their tensors is.

`examine` is the preflight; it gives every tensor one role (matrix, vector, head, copied, tied), and
everything that comes after follows these roles.
"""

from .anatomy import Anatomy, Ask
from .compatibility import Fit, architecture, compare, dtypes
from .examine import examine, look_inside
from .expert import Expert
from .family import Family
from .heads import HEAD_MODULES
from .lineage import FAR, STRANGE, kinship, middle, related
from .rewritten import rewritten

__all__ = [
    "FAR", "HEAD_MODULES", "STRANGE", "Anatomy", "Ask", "Expert", "Family", "Fit", "architecture",
    "compare", "dtypes", "examine", "kinship", "look_inside", "middle", "related", "rewritten",
]  # fmt: skip
