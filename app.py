"""MaTS Explorer: merge fine-tuned models in their task subspaces, and see why a merge works.

Start it with `streamlit run app.py`.
"""

import os
import sys

import streamlit as st

from pages.shared import doorway

# Read when torch is loaded.  Threads that spin while they wait make a merge on a busy machine ten
# times slower; threads that sleep cost a quiet one nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

page = doorway.frame()
doorway.enter()
if "torch" not in sys.modules:
    with st.spinner("Loading PyTorch, once"):
        import torch  # noqa: F401
page.run()
