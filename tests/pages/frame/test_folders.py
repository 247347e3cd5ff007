"""Which typed paths are opened: only what lies under a root once every link is followed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mats_core.errors import InputError
from pages.shared.frame import folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with one family in it, and another family outside."""
    for folder in ("root/mine", "root/deep/er", "outside/theirs", "root2"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "family.yaml").write_text("name: x")
    return tmp_path / "root"


@pytest.mark.parametrize(
    "text",
    ["mine", "mine/family.yaml", "{root}/mine", "{root}/mine/", " '{root}/mine' ", "deep/er",
     "mine/../mine"],
)  # fmt: skip
def test_what_lies_under_a_root_is_opened(root: Path, text: str):
    file = folders.locate(text.format(root=root), [root])
    assert file.is_relative_to(root.resolve())
    assert file.name == "family.yaml"


ATTACKS = {
    "parent": "../outside/theirs",
    "parent of the root": "mine/../../outside/theirs",
    "absolute": "{root}/../outside/theirs",
    "absolute resolved": "{outside}/theirs",
    "system file": "/etc/passwd",
    "a root's name as a prefix": "{root}2",
    "link to a folder": "way-out",
    "link to a file": "linked",
    "link to a link": "round/theirs",
    "network path": "\\\\server\\share\\family",
    "network path with slashes": "//server/share/family",
    "home": "~/../../etc",
    "line break": "mine\n/etc",
    "NUL": "mine\0/etc",
}


@pytest.mark.parametrize("name", ATTACKS)
def test_what_leads_out_is_refused_and_the_roots_are_named(root: Path, name: str):
    outside = root.parent / "outside"
    (root / "way-out").symlink_to(outside / "theirs")
    (root / "round").symlink_to(root.parent / "outside")
    (root / "linked").mkdir()
    (root / "linked" / "family.yaml").symlink_to(outside / "theirs" / "family.yaml")
    with pytest.raises(InputError) as caught:
        folders.locate(ATTACKS[name].format(root=root, outside=outside), [root])
    assert str(root.resolve()) in str(caught.value)
    assert "MATS_FAMILIES=" in str(caught.value)
    assert "\0" not in str(caught.value)


def test_a_network_path_is_refused_before_anyone_asks_for_it(root: Path, monkeypatch):
    monkeypatch.setattr(Path, "resolve", lambda self, **_: (_ for _ in ()).throw(AssertionError))
    for text in ("\\\\server\\share", "//server/share"):
        with pytest.raises((InputError, AssertionError)) as caught:
            folders.locate(text, [])
        assert isinstance(caught.value, InputError)


def test_whether_something_is_there_outside_is_not_told(root: Path):
    texts = []
    for there in ("theirs", "nobody"):
        with pytest.raises(InputError) as caught:
            folders.locate(f"../outside/{there}", [root])
        texts.append(str(caught.value).replace(there, "…"))
    assert texts[0] == texts[1]


def test_a_loop_of_links_and_a_folder_without_a_family_are_sentences(root: Path):
    (root / "loop").symlink_to(root / "loop")
    (root / "empty").mkdir()
    for text in ("loop", "empty", "nowhere", "", "x" * 5000):
        with pytest.raises(InputError):
            folders.locate(text, [root])


def test_families_are_found_once_and_named_by_their_folder(root: Path):
    other = root.parent / "more" / "mine"
    other.mkdir(parents=True)
    (other / "family.yaml").write_text("name: y")
    deep = root / "deep" / "er" / "family.yaml"
    found = folders.found([root, root, other.parent], [deep, deep])
    assert list(found) == ["mine", "mine (another)", "er"]
    assert found["mine (another)"] == other / "family.yaml"
