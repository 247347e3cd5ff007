"""Names of others as texts and as labels: shown as they are, and read aloud as they are."""

from __future__ import annotations

import re

import pytest

from pages.shared.frame import show

WORD_JOINER = "\N{WORD JOINER}"


@pytest.mark.parametrize(
    "name",
    ["vit-tiny-animals", "bert_base.v2", "my models (2)", "a+b", "0 · cat", "Why is it better?",
     "snake_case_name", "10.5 % !", "#1", "x-1. y"],
)  # fmt: skip
def test_what_is_no_markdown_stays_letter_by_letter(name):
    assert show.label(name) == name


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("**bold** *it*", "∗∗bold∗∗ ∗it∗"),
        ("_it_ a__b", "＿it＿ a__b"),
        ("`code` $x$ ~~no~~", "ˋcodeˋ ＄x＄ ∼∼no∼∼"),
        ("<b>x</b>", "‹b›x‹/b›"),
        ("[a](javascript:1)", "［a］(javascript:1)"),
        (":red[r] :smile: :material/x:", ":red［r］ :smile: :material/x:"),
        ("a\\*b &amp;", "a＼∗b ＆amp;"),
        ("https://a.b/c me@a.b www.a.b", "https://a.b/c me@a.b www.a.b"),
        ("# head", "# head"),
        ("1. item", "1. item"),
        ("- item", "- item"),
    ],
)
def test_markdown_of_a_name_is_written_with_what_looks_alike(name, seen):
    label = show.label(name)
    assert label.replace(WORD_JOINER, "") == seen
    assert "\\" not in label
    # No mark of Streamlit's markdown is left: emphasis, code, formula, link, directive, tag, list.
    live = r"[*`$\[\]~<>&\\]|(?<!\w)_|_(?!\w)|[:@](?=\S)(?!\u2060)|www\.(?!\u2060)"
    assert not re.search(live, label)
    assert not re.match(r"\s*(#|[-+]|\d+\.)\s", label)


def test_a_text_keeps_its_characters_behind_backslashes():
    assert show.plain("**a** 1. b") == r"\*\*a\*\* 1\. b"
