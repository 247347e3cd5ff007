"""Learn: what merging does, on two parameters that move; then six lessons on real models."""

from __future__ import annotations

import streamlit as st

from pages.shared.frame import navigation
from pages.shared.learn import guide, steps

navigation.through_the_app()
st.title("Learn", anchor=False)
st.markdown(
    "What merging is, small enough to see all of it: two tasks, two parameters. "
    "**Drag the ellipses**; every point and number follows. Five steps lead from the average to "
    "what the Merge page does with a real model."
)
steps.explore()
st.divider()
guide.overview()
