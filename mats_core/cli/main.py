"""`mats`, or `python -m mats_core`: the same recipes without a browser, and the explorer in one.

Exit code 0 for success, 2 and one clear paragraph for bad input.  Heavy imports happen inside the
commands, so that `--help` and `methods` answer at once.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import InputError
from . import app, evaluate, inspect, measure, merge, methods

EXAMPLES = """\
examples:
  {mats} methods
  {mats} measure --family sample_models/drawn --out outputs/statistics
  {mats} merge docs/recipes/kfac.yaml --set damping=0.3
  {mats} evaluate outputs/first
  {mats} inspect sample_models/drawn/digits
  {mats} app --families ~/models
"""


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
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for command in (merge, measure, evaluate, inspect, methods, app):
        command.add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of one command, which is run: 0, or 2 for bad input, told in one sentence."""
    options = parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], None] = options.run
    try:
        command(options)
    except InputError as error:
        print(textwrap.fill(f"error: {error}", 100, break_long_words=False), file=sys.stderr)
        return 2
    except (PermissionError, IsADirectoryError, NotADirectoryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    return 0
