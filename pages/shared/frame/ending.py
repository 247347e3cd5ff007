"""The end of the server: what belongs to its process alone goes with it.

Uvicorn stops serving on SIGTERM, as a service manager or a container sends it, and then raises the
signal once more for Python's own handler, which ends the process at once.  What `atexit` would have
done is done before: no job writes any more, and of a shared server nothing that its visitors have
made stays.
"""

from __future__ import annotations

import atexit


def clean_up() -> None:
    """Do now what Python does at its end; what was done is not done again then."""
    atexit._run_exitfuncs()
