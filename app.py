"""MaTS Explorer: merge fine-tuned models in their task subspaces, and see why a merge works.

Start it with `streamlit run app.py`.
"""

import sys

from streamlit.runtime.scriptrunner import get_script_run_ctx

from mats_core.system import uncollected
from pages.shared import policy
from pages.shared.frame import first_sight, navigation

if __name__ == "__main__":  # not in a process that multiprocessing starts beside a page
    if get_script_run_ctx(suppress_warning=True) is None:
        sys.exit("Start the explorer with: streamlit run app.py")
    policy.begin()
    page = navigation.frame()
    navigation.enter()
    # In every run: what follows would move, and what was opened in it by then would close.
    sight = first_sight.place()
    if first_sight.loading():
        with first_sight.shown(page.title, sight), uncollected():
            from pages.shared.frame import families  # noqa: F401  (and with it PyTorch)
    from pages.shared.frame import tracked

    with tracked.drawing():
        page.run()
