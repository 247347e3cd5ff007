"""Linear algebra that merging is made of: tensors in, tensors out, no files and no models.

Task subspaces are operators on a weight's natural shape (`operators.py`); `cg.py` solves with them,
`preconditioners.py` and `two_models.py` do it faster.  Decompositions run in float64 whatever the
arithmetic of a merge.  A numerical failure is a `Status`, never an exception.
"""

from .apart import as_apart, as_numbers, copied, host, is_apart
from .bases import Pair, core_bases, knots_basis, knots_basis_of_factors
from .branches import discriminant, input_gate, output_branch, worth_factors
from .cg import Apply, Solution, Status, cg
from .decompositions import (
    Triples,
    eigh_descending,
    exact,
    largest_triples,
    largest_triples_each,
    like,
    parts_at_once,
    polar,
    pseudo_solve,
    solve_positive,
    svd,
    symmetric,
)
from .factored import (
    essential_directions,
    factored_kronecker_inverse,
    left_directions,
    solve_factored,
    update_gram,
)
from .fallbacks import eigenvalues, eigh, noted, singular_values
from .joint import JOINT_SHARE, JOINT_STEPS, JointBasis, joint, joint_basis
from .lowrank import WORTH, Gram, LowRank, matrix
from .operators import (
    Dense,
    Diagonal,
    Identity,
    InputGram,
    Kronecker,
    Operator,
    Spectral,
    Stacked,
    WeightedSum,
    damped,
    damped_products,
    effective_dimension,
    regularised,
    regularised_gram,
    stacked,
    truncated,
)
from .preconditioners import Eigen, jacobi, kronecker, kronecker_inverse
from .products import self_product
from .selection import BLOCK, streamed_thresholds
from .truncating import Factors, rounding_of, two_factors
from .two_models import two_models
from .updates import Updates, norm, norms, weighted_sum

__all__ = [
    "BLOCK", "JOINT_SHARE", "JOINT_STEPS", "WORTH", "Apply", "Dense", "Diagonal", "Eigen",
    "Factors", "Gram", "Identity", "InputGram", "JointBasis", "Kronecker", "LowRank", "Operator",
    "Pair", "Solution", "Spectral", "Stacked", "Status", "Triples", "Updates", "WeightedSum",
    "as_apart", "as_numbers", "cg", "copied", "core_bases", "damped", "damped_products",
    "discriminant", "effective_dimension", "eigenvalues", "eigh", "eigh_descending",
    "essential_directions", "exact", "factored_kronecker_inverse", "host", "input_gate", "is_apart",
    "jacobi", "joint", "joint_basis", "knots_basis", "knots_basis_of_factors", "kronecker",
    "kronecker_inverse", "largest_triples", "largest_triples_each", "left_directions", "like",
    "matrix", "norm", "norms", "noted", "output_branch", "parts_at_once", "polar", "pseudo_solve",
    "regularised", "regularised_gram", "rounding_of", "self_product", "singular_values",
    "solve_factored", "solve_positive", "stacked", "streamed_thresholds", "svd", "symmetric",
    "truncated", "two_factors", "two_models", "update_gram", "weighted_sum", "worth_factors",
]  # fmt: skip
