"""MaTS Explorer: merge fine-tuned models in their task subspaces, and see why a merge works.

Start it with `streamlit run app.py`.
"""

import os
import sys
from pathlib import Path

import streamlit as st

from pages.shared import doorway

# Read when torch is loaded.  Threads that spin while they wait make a merge on a busy machine ten
# times slower; threads that sleep cost a quiet one nothing.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

PICTURES = Path(__file__).parent / "pages" / "shared"
PAGES = [
    st.Page("pages/merge.py", title="Merge", icon=":material/merge:", default=True),
    st.Page("pages/compare.py", title="Compare", icon=":material/compare_arrows:"),
    st.Page("pages/inside.py", title="Inside", icon=":material/search:"),
    st.Page("pages/subspaces.py", title="Subspaces", icon=":material/area_chart:"),
    st.Page("pages/family.py", title="Family", icon=":material/account_tree:"),
    st.Page("pages/learn.py", title="Learn", icon=":material/school:"),
    st.Page("pages/export.py", title="Export", icon=":material/ios_share:"),
]

# Pictures from our own files: an icon by name would be fetched from the network.
st.set_page_config("MaTS Explorer", str(PICTURES / "icon.svg"), layout="wide")
st.logo(PICTURES / "logo.svg", size="large")
page = st.navigation(PAGES, position="top")
doorway.enter()
if "torch" not in sys.modules:
    with st.spinner("Loading PyTorch, once"):
        import torch  # noqa: F401
page.run()
