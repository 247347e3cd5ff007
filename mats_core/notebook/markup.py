"""Records as HTML of a few kB and as text of a few lines, from one description (`forms.py`).

The HTML has no script, fetches nothing, and its colours follow the page's theme.  One line of text
comes first and is hidden by the style, so that it is what remains where a notebook strips styles
(an untrusted file, a diff).
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from html import escape
from typing import Any

from ..errors import cut
from .forms import MOST, Block, Picture, Table, Words, form

LINES = 20  # of a text
WIDTH = 96  # characters of its lines
CELL = 36  # characters of a cell in it
STYLE = """\
<style>.mats{--ink:var(--jp-content-font-color1,var(--vscode-editor-foreground,currentColor));
--line:rgba(128,128,128,.35);--full:#0072B2;--pale:rgba(86,180,233,.3);color:var(--ink);
font-size:13px;line-height:1.45;max-width:56em}
.mats .t{display:none}.mats b{font-weight:600}.mats small{opacity:.8}
.mats figure{margin:.3em 0}.mats figcaption{font-size:12px;max-width:52em}
.mats.mats.mats table{border-collapse:collapse;margin:.4em 0;color:inherit;background:none}
.mats.mats.mats tr{background:none}
.mats.mats.mats td,.mats.mats.mats th{border:0;border-bottom:1px solid var(--line);
padding:.15em .7em .15em 0;text-align:left;background:none;color:inherit}
.mats th{white-space:nowrap}.mats td{max-width:28em;overflow-wrap:anywhere}
.mats svg{vertical-align:middle}
@media(prefers-color-scheme:dark){.mats{--full:#56B4E9}}
[data-jp-theme-light=true] .mats,.vscode-light .mats{--full:#0072B2}
[data-jp-theme-light=false] .mats,.vscode-dark .mats{--full:#56B4E9}</style>"""


def markup(thing: Any) -> str:
    """The HTML of a record, whatever it was named; of anything else its text."""
    line, blocks = escape(repr(thing)), form(thing)
    body = f"<pre>{line}</pre>" if blocks is None else "".join(map(_html, blocks))
    return f'<div class="mats"><pre class="t">{line}</pre>{STYLE}{body}</div>'


def text(thing: Any) -> str:
    """A record in at most twenty lines; of anything else its `repr`."""
    blocks = form(thing)
    if blocks is None:
        return repr(thing)
    lines = [line for block in blocks for line in _lines(block)]
    if len(lines) > LINES:
        lines[LINES - 1 :] = [f"… and {len(lines) - LINES + 1} more lines"]
    return "\n".join(lines)


def _html(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Picture):
        caption = f"<figcaption>{escape(block.caption)}</figcaption>"
        return f"<figure>{block.svg}{caption}</figure>"
    title = f"<b>{escape(block.title)}</b>" if block.title else ""
    said = f"<small>{escape(block.text)}</small>" if block.small else escape(block.text)
    return f"<div>{' '.join(filter(None, (title, block.drawn, said)))}</div>"


def _table(table: Table) -> str:
    heads = [escape(head) for head in table.heads]
    rows = [[escape(cell) for cell in row] for row in table.rows[:MOST]]
    if table.drawn:
        heads.insert(1, "")
        for row, drawn in zip(rows, table.drawn, strict=False):
            row.insert(1, drawn)
    top = "".join(f'<th scope="col">{head}</th>' for head in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    left = len(table.rows) - MOST
    more = f"<div><small>and {left} more</small></div>" if left > 0 else ""
    return f"<table><tr>{top}</tr>{body}</table>{more}"


def _lines(block: Block) -> Iterator[str]:
    if isinstance(block, Picture):
        yield from textwrap.wrap(_plain(block.caption), WIDTH)
    elif isinstance(block, Words):
        said = _plain(" ".join(filter(None, (block.title, block.text))))
        yield from textwrap.wrap(said, WIDTH, subsequent_indent="  ", max_lines=3)
    else:
        whole = (block.heads, *block.rows[:MOST])
        rows = [[cut(_plain(cell), CELL) for cell in row] for row in whole]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            yield f"  {'  '.join(cells)}".rstrip()
        if len(block.rows) > MOST:
            yield f"  and {len(block.rows) - MOST} more"


def _plain(said: str) -> str:
    """Text on one line, without what moves a cursor."""
    return "".join(c if c.isprintable() else " " for c in said)
