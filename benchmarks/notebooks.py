"""Copies of the notebooks with their results, for those who only look: Markdown and small pictures.

    python -m benchmarks.notebooks            # all of them, in some minutes
    python -m benchmarks.notebooks 00         # those whose names begin so

The notebooks themselves are stored without outputs.  A test compares the text of the copies with
that of the notebooks; the numbers are those of the machine that wrote them.
"""

from __future__ import annotations

import ast
import contextlib
import io
import sys
from pathlib import Path
from typing import Any

import nbformat

from mats_core.figures import Figure, picture

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
COPIES = NOTEBOOKS / "rendered"
HEAD = "<!-- Written by `python -m benchmarks.notebooks`: change the notebook instead. -->"
SLIDER = "ipywidgets"  # what it makes can only be moved in a notebook
PANEL = "panel = mats.explore("  # likewise; what it begins with is told
# The picture is an image there: it asks the page for its theme itself.
INK = "<style>svg{color:#1d2733}@media(prefers-color-scheme:dark){svg{color:#e6ebf0}}</style><defs>"


def code(source: str) -> str:
    """A cell of code as a copy has it."""
    return f"```python\n{source}\n```"


def rendered(file: Path) -> tuple[str, dict[str, str]]:
    """The Markdown of a notebook, which is run, and its pictures by their file names."""
    names: dict[str, Any] = {}
    parts, pictures = [HEAD], {}
    for cell in nbformat.read(file, as_version=4).cells:
        if cell.cell_type != "code":
            parts.append(cell.source)
            continue
        folded = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        parts += ["<details><summary>Answer</summary>"] if folded else []
        parts.append(code(cell.source))
        printed, value = run(cell.source, f"{file.stem} {cell.id}", names)
        if SLIDER in cell.source:
            parts.append("*A slider, which moves in the notebook.*")
            continue
        if PANEL in cell.source:
            parts += ["*A panel, which lives in the notebook. It begins with:*"]
            printed = first_words(names["panel"])
        if printed:
            parts.append(f"```text\n{printed}\n```")
        if isinstance(value, Figure):
            name = f"{file.stem}_{len(pictures) + 1}.svg"
            pictures[name] = picture(value.figure, value.alt).replace("<defs>", INK, 1) + "\n"
            parts.append(f"![{value.alt.replace('[', '(').replace(']', ')')}]({name})")
            parts.append(f"*{value.caption}*")
        elif value is not None:
            parts.append(f"```text\n{value}\n```")
        parts += ["</details>"] if folded else []
    return "\n\n".join(parts) + "\n", pictures


def first_words(panel: Any) -> str:
    """What a panel says of its first result; it is closed."""
    panel.wait(whole=True)
    panel.close()
    return repr(panel)


def run(source: str, place: str, names: dict[str, Any]) -> tuple[str, Any]:
    """What a cell prints, and the value of its last line, which a notebook would show."""
    tree, out, value = ast.parse(source), io.StringIO(), None
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(out):
        exec(compile(tree, place, "exec"), names)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), place, "eval"), names)
    return out.getvalue().rstrip(), value


def main(beginnings: list[str]) -> None:
    COPIES.mkdir(exist_ok=True)
    for file in sorted(NOTEBOOKS.glob("*.ipynb")):
        if beginnings and not file.name.startswith(tuple(beginnings)):
            continue
        text, pictures = rendered(file)
        for old in COPIES.glob(f"{file.stem}*"):
            old.unlink()
        (COPIES / f"{file.stem}.md").write_text(text, "utf-8")
        for name, svg in pictures.items():
            (COPIES / name).write_text(svg, "utf-8")
        print(f"{file.stem}: {len(pictures)} pictures")


if __name__ == "__main__":
    main(sys.argv[1:])
