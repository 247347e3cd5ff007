"""Small ways to show things: text as text, sentences that stay, figures with their words."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

import streamlit as st
from streamlit.components.v2 import component

from mats_core import figures
from mats_core.figures import Figure

from .. import policy
from . import browser
from .state import session

JOINED = (
    "\N{WORD JOINER}"  # neither seen nor read: it parts what would be a directive or an address
)
ALIKE = str.maketrans(
    {
        "*": "\N{ASTERISK OPERATOR}",
        "_": "\N{FULLWIDTH LOW LINE}",
        "`": "\N{MODIFIER LETTER GRAVE ACCENT}",
        "$": "\N{FULLWIDTH DOLLAR SIGN}",
        "[": "\N{FULLWIDTH LEFT SQUARE BRACKET}",
        "]": "\N{FULLWIDTH RIGHT SQUARE BRACKET}",
        "~": "\N{TILDE OPERATOR}",
        "<": "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}",
        ">": "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}",
        "\\": "\N{FULLWIDTH REVERSE SOLIDUS}",
        "&": "\N{FULLWIDTH AMPERSAND}",
    }
)
_still = component(
    "still", html="<div></div>", isolate_styles=False,
    js="export default ({ data, parentElement }) => {"
    " parentElement.querySelector('div').innerHTML = data.picture; };",
)  # fmt: skip
BLOCK = re.compile(r"\s*(#{1,6}|[-+=]+|\d+[.)])(\s|$)")  # begins a heading, a list, or a rule


def plain(text: str) -> str:
    """Text whose every character is shown as it is: names never become markdown."""
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|~$<>:])", r"\\\1", text)


def label(text: str) -> str:
    """Text for the label of a widget: shown as it is, and read aloud as it is.

    A label's source is its name for screen readers, so no backslash may stand in it: what would be
    markdown is written with characters that look alike.
    """
    kept = re.sub(r"(?<=[^\W_])_+(?=[^\W_])", lambda inside: "\0" * len(inside[0]), text)
    alike = kept.translate(ALIKE).replace("\0", "_")
    alike = re.sub(r"[:@](?=\S)|(?<=www)\.", lambda mark: mark[0] + JOINED, alike)
    return f"{JOINED}{alike}" if BLOCK.match(alike) else alike


def problem(text: str) -> None:
    """An error, as a sentence."""
    st.error(plain(text), icon=":material/error:")


def switched_off() -> None:
    """What is switched off on a shared server, and why; nothing on one's own."""
    if said := policy.current().sentences:
        with st.expander("A shared server: what is switched off here, and why",
                         icon=":material/groups:"):  # fmt: skip
            st.markdown("\n".join(f"- {plain(one)}" for one in said))


def capital(text: str) -> str:
    """The text begun with a capital; a symbol stays: δ is not Δ."""
    return text[:1].upper() + text[1:] if text[:1].isascii() else text


def sentence(text: str) -> str:
    """A sentence as it stands alone: begun with a capital (but for a file's name), and ended."""
    begun = capital(text) if text.partition(" ")[0].isalpha() else text
    return begun + ("" if text.endswith((".", "…", "!", "?")) else ".")


def warnings(sentences: Sequence[str]) -> None:
    """What is to be known about models and data, in one box."""
    said = [plain(sentence(one)) for one in sentences]
    if said:
        several = len(said) > 1
        st.warning("\n".join(f"- {one}" for one in said) if several else said[0])


def keep(kind: str, text: str) -> None:
    """Say something on this page until the next piece of work begins."""
    session.notice = (kind, text)
    browser.say(text)


def forget() -> None:
    del session.notice


def notices() -> None:
    """What was kept to be said, for the eye and for the ear."""
    browser.voice()
    kind, text = session.notice or ("", "")
    if kind == "error":
        problem(text)
    elif kind == "info":
        st.info(plain(text))


def formula(parts: Sequence[tuple[str, str]]) -> None:
    """A formula in pieces, whose symbols are explained where the pointer or the keyboard is."""
    st.html(f'<p class="formula">{"".join(_symbol(*one) for one in parts)}</p>')


def _symbol(text: str, meaning: str) -> str:
    if not meaning:
        return html.escape(text)
    said = html.escape(f"{text}: {meaning}")
    shown = f'role="img" aria-label="{said}" title="{said}"'  # an image has one name, which is read
    return f'<abbr tabindex="0" {shown}>{html.escape(text)}</abbr>'


def halves(name: str, widths: int | Sequence[int] = 2) -> Sequence[Any]:
    """Columns for figures and formulas, which stand below each other where both would be too small
    to be read (`style.css`)."""
    return st.container(key=f"halves-{name}").columns(widths, gap="large")


def figure(drawn: Figure, key: str, **chart: Any) -> Any:
    """A figure, with what it says about this result under it, and its numbers to take away.

    `chart` goes to `st.plotly_chart` (`on_select`, ...), whose answer is returned.  The camera in
    the figure's own bar saves a PNG.
    """
    name = _file(key)
    with st.container(gap="xsmall", key=f"figure {key}"):  # style.css knows the figures by this
        answer = st.plotly_chart(
            drawn.figure,
            theme="streamlit",
            key=key,
            alt=drawn.alt,
            config={
                "displaylogo": False,
                "modeBarButtonsToRemove": ["lasso2d", "select2d"],
                "toImageButtonOptions": {"format": "png", "filename": name, "scale": 2},
            },
            **chart,
        )
        _below(drawn, key, name, "The numbers of this figure. The camera above it saves a picture.")
    return answer


def still(drawn: Figure, key: str, width: int) -> None:
    """The same as a still picture, `width` pixels wide where there is room: a dozen of these are
    there at once, where the browser draws one figure after another."""
    with st.container(gap="xsmall", key=f"still {key}"):
        picture = figures.picture(drawn.figure, drawn.alt, width=width)
        _still(key=key, data={"picture": picture})
        _below(drawn, key, _file(key), "The numbers of this picture.")


def _file(key: str) -> str:
    return re.sub(r"[^\w]+", "-", key).strip("-").lower()


def _below(drawn: Figure, key: str, name: str, said: str) -> None:
    """What a figure says about this result, and its numbers to take away."""
    with st.container(horizontal=True, vertical_alignment="top", gap="small"):
        st.markdown(f":small[{plain(drawn.caption)}]", width="stretch")
        st.download_button(
            "CSV", lambda: figures.to_csv(drawn).encode(), f"{name}.csv", "text/csv",
            key=f"csv {key}", type="tertiary", icon=":material/download:", on_click="ignore",
            help=said,
        )  # fmt: skip
