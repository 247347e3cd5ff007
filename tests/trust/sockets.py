"""Sessions on a shared server without browsers: what each takes of the server, in memory and time.

    python -m tests.trust.sockets 1 2 5 10 30

A session is the WebSocket that a page opens, on which the page Merge is drawn; it is kept open.
Cheaper than `tests.trust.crowd --measure`, whose browsers take more of a small machine than the
server does.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.asyncio.client import connect

from .crowd import Server, server

MOST = 1 << 26  # bytes of a message
PATIENCE = 600.0  # seconds
PREPARING = 3.0  # seconds without work after which the family is prepared


async def opened(address: str) -> Any:
    """A session on which a page was drawn once."""
    url = f"{address.replace('http', 'ws')}/_stcore/stream"
    socket = await connect(url, subprotocols=["streamlit"], max_size=MOST, ping_interval=None)  # type: ignore[list-item]
    asked = BackMsg()
    asked.rerun_script.query_string = ""
    await socket.send(asked.SerializeToString())
    async with asyncio.timeout(PATIENCE):
        while True:
            data = await socket.recv()
            assert isinstance(data, bytes)
            message = ForwardMsg.FromString(data)
            if message.WhichOneof("type") == "script_finished":
                return socket


async def measured(app: Server, counts: list[int]) -> list[str]:
    """A table: what so many sessions take of one server."""
    lines = ["| sessions open | memory of the server | CPU seconds of an opening |",
             "| --- | --- | --- |"]  # fmt: skip
    (await opened(app.address)).transport.abort()  # libraries, and what is prepared for all
    await rested(app)
    print(f"with nobody: {app.memory() / 1e6:,.0f} MB, {app.seconds():.1f} CPU seconds", flush=True)
    sockets: list[Any] = []
    for count in counts:
        before, new = app.seconds(), count - len(sockets)
        while len(sockets) < count:
            sockets.append(await opened(app.address))
        await rested(app)
        each = (app.seconds() - before) / new
        lines.append(f"| {count} | {app.memory() / 1e6:,.0f} MB | {each:.2f} |")
        print(lines[-1], flush=True)
    for socket in sockets:
        await socket.close()
    await rested(app)
    print(f"after all have left: {app.memory() / 1e6:,.0f} MB", flush=True)
    return lines


async def rested(app: Server) -> None:
    """Wait until the server has done next to nothing for a while."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        before = app.seconds()
        await asyncio.sleep(PREPARING)
        if app.seconds() - before < 0.02 * PREPARING:
            return


def main() -> None:
    """Print what was measured."""
    counts = [int(word) for word in sys.argv[1:]] or [1, 2, 5, 10]
    with tempfile.TemporaryDirectory() as place:
        os.environ.setdefault("MATS_CACHE", f"{place}/cache")
        with server(Path(place)) as app:
            lines = asyncio.run(measured(app, counts))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
