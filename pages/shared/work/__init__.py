"""What the worker does for the pages: no Streamlit in this room.

Long work is a `Job`: it is handed to the one worker, tells how far it is, and can be cancelled.
"""

from . import (
    bringing,
    confusion,
    drafts,
    final,
    leaderboard,
    lesson,
    predicted_loss,
    shipped,
    tested,
    why,
)
from .between import walk
from .chosen import chosen, chosen_examples
from .conflict import ConflictRequest, forecast_conflicts, measure_conflicts
from .convergence import follow
from .drafts import Draft
from .export import Written
from .feature_map import draw_map, finish_map
from .film import film
from .further import Further
from .intermediate import DonationRequest, ask_finally, measure_donations
from .jobs import Job, Snapshot, Tell
from .ladder import LadderRequest, run_ladder
from .layers import tabulate
from .loading import EXAMPLES, load
from .merge import Request, Residuals
from .own_example import ask_own
from .prepare import Prepared, TaskCard, clipped, picture
from .runs import Run
from .search import SearchRequest, journal, run_search
from .shelf import Answers, Shelf
from .sizes import SizesRequest, run_sizes
from .soup import Souped, SoupRequest, run_soup
from .stepping import step_through
from .survey import look_around
from .sweep import SweepRequest, run_sweep
from .worker import Desk, Worker

__all__ = [
    "EXAMPLES", "Answers", "ConflictRequest", "Desk", "DonationRequest", "Draft", "Further", "Job",
    "LadderRequest", "Prepared", "Request", "Residuals", "Run", "SearchRequest", "Shelf",
    "SizesRequest", "Snapshot", "SoupRequest", "Souped", "SweepRequest", "TaskCard", "Tell",
    "Worker", "Written", "ask_finally", "ask_own", "bringing", "chosen", "chosen_examples",
    "clipped", "confusion",
    "drafts", "draw_map", "export", "film", "final", "finish_map", "follow", "forecast_conflicts",
    "journal", "leaderboard", "lesson", "load", "look_around", "measure_conflicts",
    "measure_donations", "merge", "picture", "predicted_loss", "prepare", "run_ladder",
    "run_search", "run_sizes", "run_soup", "run_sweep", "runs", "shipped", "step_through",
    "tabulate", "tested", "walk", "why",
]  # fmt: skip
