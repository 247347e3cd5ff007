"""The browser window that the command opens where it is started by hand.

`streamlit run` opens one for a plain script only, and not for a server with a lifespan of its own
(`UvicornRunner` of its starlette_server.py, 1.67).
"""

from __future__ import annotations

import threading
import webbrowser

import streamlit as st

EVERYWHERE = ("", "0.0.0.0", "::")  # addresses that a server binds and no browser opens
AFTER = 0.5  # seconds: the server answers as soon as its lifespan has begun


def address() -> str:
    """The address of this server for a browser on this machine."""
    bound = str(st.get_option("server.address") or "")
    host = "localhost" if bound in EVERYWHERE else bound
    scheme = "https" if st.get_option("server.sslCertFile") else "http"
    path = str(st.get_option("server.baseUrlPath") or "").strip("/")
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{st.get_option('server.port')}/{path}"


def open_soon() -> None:
    """Open the address in a browser, unless the server was started without one."""
    if st.get_option("server.headless"):
        return
    timer = threading.Timer(AFTER, webbrowser.open, [address()])
    timer.daemon = True
    timer.start()
