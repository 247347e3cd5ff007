"""`app`: the explorer in a browser, from any folder.

In a checkout it is the `app.py` beside the library; the wheel keeps it, with the pages and the
sample family, in a folder `mats_explorer`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError

PORT = 8501
FAMILIES = "MATS_FAMILIES"
DEMO = "MATS_DEMO"
UPLOAD = 2  # MB of one file that a shared server takes
NEEDED = ("streamlit", "plotly", "nbformat")
HOME = Path(__file__).resolve().parents[2]


def add(commands: Any) -> None:
    """Add the command to the grammar."""
    command = commands.add_parser(
        "app",
        help="start the explorer in the browser",
        description="Start the explorer on this machine and open it in the browser. Only this "
        "machine can reach it. What follows a bare -- is passed on to `streamlit run`.",
    )
    command.add_argument("--port", type=int, default=PORT, help=f"of the address; {PORT}")
    command.add_argument(
        "--families",
        nargs="+",
        type=Path,
        metavar="PATH",
        help=f"folders with a family.yaml, or of such folders; instead of {FAMILIES}",
    )
    command.add_argument(
        "--demo",
        action="store_true",
        help=f"for a shared or public server: only the families that came along, nothing typed, "
        f"fetched or kept, and limits for each session; as {DEMO}=1 (docs/deploy.md)",
    )
    command.add_argument("--headless", action="store_true", help="open no browser")
    command.add_argument("options", nargs="*", metavar="-- OPTION", help="of `streamlit run`")
    command.set_defaults(run=_app)


def _app(arguments: argparse.Namespace) -> None:
    _require(NEEDED)
    environment = dict(os.environ)
    if arguments.demo and arguments.families:
        raise InputError(
            "--demo",
            expected="no --families: a shared server opens those that came along",
            found=f"--families {arguments.families[0]}",
        )
    if arguments.demo:
        environment[DEMO] = "1"
    if arguments.families:
        environment[FAMILIES] = os.pathsep.join(map(_family_root, arguments.families))
    _become(command(script(HOME), arguments), environment)


def _require(packages: Sequence[str]) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            "the explorer",
            expected=f"the packages {', '.join(packages)}",
            found=f"no {', '.join(missing)}",
            remedy="Install MaTS Explorer with its extra [app]: python -m pip install '.[app]' in "
            "the folder of its code.",
        )


def script(home: Path) -> Path:
    """The `app.py` beside the library in `home`: of a checkout, or of an installed wheel."""
    for folder in (home, home / "mats_explorer"):
        if (folder / "app.py").is_file() and (folder / "pages").is_dir():
            return folder / "app.py"
    raise InputError(
        "the explorer",
        expected=f"app.py and pages/ in '{home}' or in its folder mats_explorer",
        found="neither",
        remedy="Install MaTS Explorer again: its wheel holds both.",
    )


def _family_root(path: Path) -> str:
    if not path.is_dir():
        raise InputError(
            f"--families '{path}'",
            expected="a folder with a family.yaml, or one of such folders",
            found="a file" if path.exists() else "nothing there",
        )
    return str(path.resolve())


def command(app: Path, arguments: argparse.Namespace) -> list[str]:
    """The words that start the explorer; those after `--` come last, so they count."""
    # -P: a module in the folder where this is called must not stand in for a library.  Streamlit
    # reads the configuration beside app.py after those of the working directory and of the user; an
    # environment variable would win over all, so what keeps the machine closed is said here.
    return [
        *(sys.executable, "-P", "-m", "streamlit", "run", str(app)),
        *("--server.port", str(arguments.port)),
        *("--server.address", "127.0.0.1"),
        *("--browser.gatherUsageStats", "false"),
        *(("--server.maxUploadSize", str(UPLOAD)) if arguments.demo else ()),
        *(("--server.headless", "true") if arguments.headless or arguments.demo else ()),
        *arguments.options,
    ]


def _become(words: list[str], environment: Mapping[str, str]) -> None:
    """Be the app from now on, so that it gets the signals and its exit code is the command's."""
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(words[0], words, environment)
    else:
        raise SystemExit(subprocess.call(words, env=environment))
