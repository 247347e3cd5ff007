"""From what a panel knows to HTML: the same markup while it lives and where it is saved.

Every sentence is computed from the numbers of this very state.
"""

from __future__ import annotations

import statistics
from html import escape

from ..errors import duration
from ..evaluation import half_width
from ..figures import percent
from ..methods import METHODS
from ..recipes import Report
from . import views
from .answers import Run, State
from .beside import Beside, examples
from .subjects import LOADER
from .svg import STYLE, framed

LIVE = "mats-live"  # the class of a panel's widgets, which are there as long as the kernel is
HIDDEN = f"<style>.jp-OutputArea:has(.{LIVE}) .mats-still{{display:none}}</style>"


def progress(state: State) -> str:
    """The work under way as a bar with its text; "" where there is none."""
    if not state.text or state.error:
        return ""
    value = 1.0 if state.answered else state.fraction
    more = "Next: " if state.answered else ""
    bar = f'<progress value="{value:.3f}" aria-label="progress"></progress>'
    return framed(bar, f'<div class="quiet">{more}{escape(state.text)}</div>')


def result(state: State, pinned: Run | None = None) -> str:
    """The result in a number and a sentence, announced by screen readers, or why there is none."""
    return framed(_said(state, pinned))


def _said(state: State, pinned: Run | None) -> str:
    if state.error:
        return f'<div role="alert"><p class="down"><b>{escape(state.error)}</b></p></div>'
    body = _first_number(state) if state.merge is None else _headline(state, pinned)
    notes = "".join(f'<p class="quiet">{escape(note)}</p>' for note in _notes(state))
    return f'<div role="status" aria-live="polite">{body}</div>{notes}'


def _first_number(state: State) -> str:
    """The average, while the first merge is on its way."""
    if state.average is None:
        return ""
    reached = state.average.report.normalised_accuracy
    if reached is None:
        return "<p>The average is merged.</p>"
    counted = _counted(state.average.report)
    return f"<p>The average keeps {percent(reached)} of the experts' accuracy, on {counted}.</p>"


def _headline(state: State, pinned: Run | None) -> str:
    assert state.merge is not None
    report = state.merge.report
    title = escape(METHODS[report.method].title)
    if report.normalised_accuracy is None:
        return f"<p>{title}: {_far(state)} Merged in {duration(report.seconds)}.</p>"
    half = half_width(report.tasks)
    lines = [
        f'<span class="n mats-number">{percent(report.normalised_accuracy)}</span> '
        f"of the experts' accuracy (± {100 * half:.1f} points), {title}"
    ]
    lines += [_against(one, report.split) for one in views.others(state, pinned)]
    lines.append(_asked(report))
    return "<br>".join(lines)


def _far(state: State) -> str:
    """How far a merge without tasks is from its experts."""
    if state.distances is None:
        return ""
    ours = statistics.mean(state.distances.of("merge").values())
    mean = statistics.mean(state.distances.of("average").values())
    return (
        f'<span class="n mats-number">× {ours:.2f}</span> as far from the experts as the base is, '
        f"on average over them; the average is × {mean:.2f} as far."
    )


def _against(one: Beside, split: str) -> str:
    """By how much, and both numbers on the examples that the difference is of."""
    whole, (ours, theirs) = one.comparison.mean, one.kept
    assert whole is not None
    what = "the average" if one.name == "average" else f"the pinned run {one.name}"
    sure = "" if whole.clear else ", which may be chance"
    if not one.same:
        on = "not all on the same examples"
    elif one.whole:
        on = f"on the same {one.examples:,} {split} examples"
    else:
        both = f"on the {one.examples:,} {split} examples that both answered"
        on = f"{both}, where this merge keeps {percent(ours)}"
    return (
        f"<b>{100 * whole.value:+.1f} points</b> against {escape(what)} ({percent(theirs)}), 95 % "
        f"interval {100 * whole.low:+.1f} to {100 * whole.high:+.1f}{sure}, {on}"
    )


def _counted(report: Report) -> str:
    left = 0 if LOADER in report.split else report.left  # there, what has no label is never asked
    so_far = f" so far, {left:,} to come" if left else ""
    return f"{examples(report.tasks):,} {report.split} examples{so_far}"


def _asked(report: Report) -> str:
    return (
        f'<span class="quiet">{_counted(report)}; merged and tested in '
        f"{duration(report.seconds)} on {escape(report.device)}</span>"
    )


def _notes(state: State) -> list[str]:
    merge = state.merge
    warnings = list(merge.report.warnings[:3]) if merge is not None else []
    problem = [f"Without statistics: {state.problem}"] if state.problem else []
    return [*problem, *warnings]


VIEWS = {
    "Tasks": lambda state, pinned: views.tasks(state, pinned),
    "Solve": lambda state, pinned: views.solve(state),
    "Why": lambda state, pinned: views.why(state),
    "Scaling": lambda state, pinned: views.weights(state),
    "Layer": lambda state, pinned: views.layer(state),
}
EMPTY = {
    "Tasks": "Nothing is merged yet.",
    "Solve": "This method solves nothing by iterations.",
    "Why": "This needs statistics, and comes after the result.",
    "Scaling": "This method has no polarized scaling.",
    "Layer": "Choose a layer in the picture of the model.",
}


def view(name: str, state: State, pinned: Run | None = None) -> str:
    """One view of a state as HTML, or why there is nothing to see in it."""
    body = VIEWS[name](state, pinned)
    return framed(body or f'<p class="quiet">{EMPTY[name]}</p>')


def plain(text: str) -> str:
    """A text as it is, in the panel's style."""
    return framed(f"<pre>{escape(text)}</pre>")


# In the page, where a front end lets it: it selects the lines, copies them, and says which it did.
COPY = (
    "const all=document.createRange();"
    "all.selectNodeContents(this.parentNode.querySelector('pre'));"
    "const now=getSelection();now.removeAllRanges();now.addRange(all);"
    "this.textContent=document.execCommand('copy')?'Copied':'Selected: press Ctrl+C'"
)


def to_copy(code: str) -> str:
    """Lines of code with a button that copies them; without scripts a click selects them all."""
    said = "A click on the lines selects them all."
    return framed(
        f'<button type="button" onclick="{escape(COPY)}">Copy</button> '
        f'<span class="quiet">{said}</span>{_lines(code)}'
    )


def _lines(code: str) -> str:
    return f'<pre class="all">{escape(code)}</pre>'


def still(state: State, pinned: Run | None = None, code: str = "") -> str:
    """All that is known, without widgets: what a saved file shows, and a living panel hides."""
    if state.merge is None:
        said = "<p>A live panel of MaTS Explorer: run this cell to use it.</p>"
        return f'{HIDDEN}<div class="mats-still">{said}</div>'
    options = ", ".join(f"{name} {value}" for name, value in state.merge.report.options.items())
    shown = {name: VIEWS[name](state, pinned) for name in VIEWS}
    rest = "".join(
        f"<details><summary>{name}</summary>{body}</details>"
        for name, body in shown.items()
        if body and name != "Tasks"
    )
    lines = f"<details><summary>Code</summary>{_lines(code)}</details>" if code else ""
    parts = (f'<p class="quiet">{escape(options)}</p>', shown["Tasks"], rest, lines)
    whole = framed(_said(state, pinned), *parts)
    return f'{HIDDEN}{STYLE}<div class="mats-still">{whole}</div>'
