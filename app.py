"""MaTS Explorer: merge fine-tuned models in their task subspaces, and see why a merge works.

Start it with `streamlit run app.py`.
"""

import sys

from streamlit.runtime.scriptrunner import get_script_run_ctx

from mats_core.system import set_waiting, uncollected
from pages.shared import policy
from pages.shared.frame import first_sight, navigation

if __name__ == "__main__":  # not in a process that multiprocessing starts beside a page
    if get_script_run_ctx(suppress_warning=True) is None:
        sys.exit("Start the explorer with: streamlit run app.py")
    policy.begin()
    set_waiting()
    page = navigation.frame()
    navigation.enter()
    if "torch" not in sys.modules:
        with first_sight.shown(page.title), uncollected():
            from pages.shared.frame import families  # noqa: F401  (and with it PyTorch)
    from pages.shared.frame import tracked

    with tracked.drawing():
        page.run()
