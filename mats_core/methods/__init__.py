"""The merging methods: each is one file that declares options, mathematics and cost.

A method merges one layer at a time (`Layer` in, `Merged` out) and never sees a file.  `METHODS` is
the literal table of all of them; `reference.py` turns their declarations into what the command
line, the widgets and the reference page show.
"""

from . import reference
from .cost import Cost, Shape, calls, operations, passes, selection, svd_bytes, two_factors
from .essential import (
    EssentialOptions,
    essential_update,
    relative_power,
)
from .essential_directions import essential_subspace, shift_covariance
from .kfac import kfac
from .kfac_options import KfacOptions
from .ladders import LADDERS, Ladder, Rung
from .layer import Earlier, Layer, LayerStatistics, Merged, Treatment, Watch
from .method import Counterpart, Method, Solve, Sums
from .options import Options
from .presets import FIRST, PRESETS, PROPOSED, WITHOUT_DATA, Preset
from .reference import (
    OptionField,
    describe,
    fields_of,
    named_checkpoints,
    named_tasks,
    options_of_the_base,
)
from .running import merge_running, running_cost
from .sequential import (
    DECIDED,
    INPUT_WIDTH,
    STEADIED,
    SequentialOptions,
    measured_at_once,
    share_of_update,
)
from .spaces import space_of
from .stages import PLAIN, Stage
from .starts import STARTS
from .steps import STEPS, Applied, Step, as_mapping, stretched, with_steps
from .table import METHODS, SIMPLEST

__all__ = [
    "DECIDED", "FIRST", "INPUT_WIDTH", "LADDERS", "METHODS", "PLAIN", "PRESETS", "PROPOSED",
    "SIMPLEST", "STARTS", "STEADIED", "STEPS", "WITHOUT_DATA", "Applied", "Cost", "Counterpart",
    "Earlier", "EssentialOptions", "KfacOptions", "Ladder", "Layer", "LayerStatistics", "Merged",
    "Method", "OptionField", "Options", "Preset", "Rung", "SequentialOptions", "Shape", "Solve",
    "Stage", "Step", "Sums", "Treatment", "Watch", "as_mapping", "calls", "describe",
    "essential_subspace", "essential_update", "fields_of", "kfac", "measured_at_once",
    "merge_running",
    "named_checkpoints", "named_tasks", "operations", "options_of_the_base", "passes", "reference",
    "relative_power", "running_cost", "selection", "share_of_update", "shift_covariance",
    "space_of", "stretched", "svd_bytes", "two_factors", "with_steps",
]  # fmt: skip
