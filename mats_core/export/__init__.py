"""What a finished merge leaves the house as: recipe, commands, notebook, HTML, mergekit.

All of it is text made from a `Finished`; nothing is written here, and nothing depends on the day
or the machine.
"""

from .command import commands, recipe_yaml
from .html_report import html_report, run_figures
from .mergekit import Mergekit, mergekit
from .notebook import notebook
from .portable import Finished, Measuring, spelled
from .reopen import Reopened, reopen, reopening

__all__ = [
    "Finished", "Measuring", "Mergekit", "Reopened", "commands", "html_report", "mergekit",
    "notebook", "recipe_yaml", "reopen", "reopening", "run_figures", "spelled",
]  # fmt: skip
