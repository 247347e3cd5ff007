"""`mats`, or `python -m mats_core`: the same recipes without a browser, and the explorer in one.

Exit code 0 for success; 2 and one clear paragraph for bad input and for what the machine refuses;
3 for a fault of this program, with how to report it; 130 where it was stopped (Ctrl-C), 143 where
it was ended (SIGTERM), both after it has cleaned up.  `--debug` shows the traceback.  Heavy imports
happen inside the commands, so that `--help` and `methods` answer at once.
"""

from __future__ import annotations

import argparse
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import InputError, machine_error, reason
from . import (
    advise,
    align,
    app,
    donors,
    evaluate,
    inspect,
    measure,
    merge,
    methods,
    search,
    soup,
)

REFUSED, FAULT, STOPPED, ENDED = 2, 3, 130, 143  # exit codes
EXAMPLES = """\
examples:
  {mats} methods
  {mats} advise sample_models/drawn
  {mats} measure --family sample_models/drawn --out outputs/statistics
  {mats} merge docs/recipes/kfac.yaml --set damping=0.3
  {mats} search docs/recipes/kfac.yaml --trials 30 --output outputs/best.yaml
  {mats} evaluate outputs/first
  {mats} inspect sample_models/drawn/digits
  {mats} app --families ~/models
"""


class Terminated(KeyboardInterrupt):
    """Raised where the system asks this process to end."""


def called() -> str:
    """How this command line was called: `mats`, or `python -m mats_core`."""
    return "mats" if Path(sys.argv[0]).stem == "mats" else "python -m mats_core"


def parser() -> argparse.ArgumentParser:
    """The command line's grammar; the options of the methods come from their declarations."""
    top = argparse.ArgumentParser(
        prog=called(),
        description="Merge fine-tuned models in their task subspaces, and see why a merge works.",
        epilog=EXAMPLES.format(mats=called()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    about: dict[str, Any] = {"action": "store_true", "help": "show the traceback of what fails"}
    top.add_argument("--debug", **about)
    top.add_argument("--version", action="version", version=f"MaTS Explorer {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    making, looking = (merge, search, soup, donors, align), (measure, evaluate, inspect, methods)
    for command in (advise, *making, *looking, app):
        command.add(commands)
    for one in commands.choices.values():  # after the command as well as before it
        one.add_argument("--debug", default=argparse.SUPPRESS, **about)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of one command, which is run: 0, or another one after a paragraph that says
    what was wrong (see the module's text)."""
    options = parser().parse_args(arguments)
    if arguments is None:  # of this process, and not called by another program
        signal.signal(signal.SIGTERM, _end)
    command: Callable[[argparse.Namespace], None] = options.run
    try:
        command(options)
    except BrokenPipeError:
        return 0
    except (SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of a library in Rust is no `Exception`
        if options.debug:
            import traceback

            traceback.print_exception(error)
        code, text = _told(error)
        print(textwrap.fill(text, 100, break_long_words=False), file=sys.stderr)
        return code
    return 0


def _end(*_: object) -> None:
    raise Terminated


def _told(error: BaseException) -> tuple[int, str]:
    """The exit code for what ended a command, and the paragraph that says so."""
    if isinstance(error, KeyboardInterrupt):
        code, said = (ENDED, "ended") if isinstance(error, Terminated) else (STOPPED, "stopped")
        return code, f"{said}. {' '.join(map(str, error.args)) or 'Nothing was written.'}"
    known = error if isinstance(error, InputError) else machine_error("this command", error)
    if known is not None:
        return REFUSED, f"error: {known}"
    import platform

    versions = f"{__version__}, Python {platform.python_version()}, {platform.system()}"
    return FAULT, (
        f"error: this is a fault of MaTS Explorer, not of yours: {type(error).__name__}: "
        f"{reason(error)}. Please report it with the command, the versions ({versions}) and the "
        "traceback that --debug shows."
    )
