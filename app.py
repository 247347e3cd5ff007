"""MaTS Explorer: merge fine-tuned models in their task subspaces, and see why a merge works.

Start it with `streamlit run app.py`.
"""

import sys

import streamlit as st

from mats_core.system import set_waiting
from pages.shared.frame import navigation

set_waiting()

page = navigation.frame()
navigation.enter()
if "torch" not in sys.modules:
    with st.spinner("Loading PyTorch, once"):
        import torch  # noqa: F401
page.run()
