"""What a merge will cost, and which one to take, before anything is merged.

Memory, disk and time come from shapes alone; the advice from what the study has measured, of which
`evidence.json` is made.
"""

from . import merge_cost
from .advice import Advice, Suggestion
from .advising import advise, advise_on
from .evidence import Choice, Evidence, Kept, Needs, choose, evidence
from .fitting import fits, require
from .merge_cost import Estimate, estimate, estimate_plan
from .situation import Situation

__all__ = [
    "Advice", "Choice", "Estimate", "Evidence", "Kept", "Needs", "Situation", "Suggestion",
    "advise", "advise_on", "choose", "estimate", "estimate_plan", "evidence", "fits", "merge_cost",
    "require",
]  # fmt: skip
