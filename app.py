"""MaTS Explorer: merge fine-tuned models in their task subspaces, and see why a merge works.

Start it with `streamlit run app.py`, which imports this module for `app`, the server, and then runs
it once for every page that is drawn.
"""

import contextlib
import sys
from collections.abc import AsyncIterator

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from mats_core.system import uncollected
from pages.shared import policy
from pages.shared.frame import ahead, ending, first_sight, navigation, window

ROOMS = ("pages.shared.frame", "pages.shared.views")  # what every page takes, and all below


@contextlib.asynccontextmanager
async def started(server: st.App) -> AsyncIterator[None]:
    """While the server runs: its libraries are loaded before the first visitor asks for them."""
    del server
    policy.begin()
    ahead.begin(ROOMS)
    window.open_soon()
    yield
    ending.clean_up()


if __name__ == "__main__":  # not in a process that multiprocessing starts beside a page
    if get_script_run_ctx(suppress_warning=True) is None:
        sys.exit("Start the explorer with: streamlit run app.py")
    policy.begin()
    page = navigation.frame()
    navigation.enter()
    # In every run: what follows would move, and what was opened in it by then would close.
    sight = first_sight.place()
    if ahead.loading():
        with first_sight.shown(page.title, sight), uncollected():
            from pages.shared.frame import families  # noqa: F401  (and with it PyTorch)
    from pages.shared.frame import tracked

    with tracked.drawing():
        page.run()
elif __name__ == "app":  # the server's own import
    app = st.App(__file__, lifespan=started)
