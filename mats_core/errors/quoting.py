"""Names as text where they leave this library: in Markdown, in a shell.

What files, recipes and folders are called was written by others.
"""

from __future__ import annotations

import re
import shlex

# Signs of Markdown inside of a line, of HTML and of formulas in it; an underline within a word is
# none.
SIGNS = re.compile(r"[\\`*{}\[\]#!|~$<>:&]|(?<![^\W_])_|_(?![^\W_])")


def one_line(text: str) -> str:
    """Text that stays on its line, so that a name cannot end a comment."""
    return "".join(c if c.isprintable() else " " for c in text)


def markdown(text: str) -> str:
    """Text that reads in Markdown as it is, on one line."""
    return SIGNS.sub(r"\\\g<0>", one_line(text))


def code_span(text: str) -> str:
    """Text between two backticks of Markdown, also in a cell of a table."""
    return one_line(text).replace("`", "'").replace("|", "\\|")


def shell(path: str) -> str:
    """A path as one word of a command for the shell, which has to see the `~` of a home folder."""
    if path.startswith("~/"):
        return f"~/{shlex.quote(path[2:])}"
    return shlex.quote(f"./{path}" if path.startswith("-") else path)
