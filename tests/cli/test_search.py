"""`search` on the command line: a recipe comes out, and a search goes on from its journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from mats_core.cli import main
from mats_core.recipes import dump_recipe, load_recipe, parse_recipe, still_tuned
from tests.conftest import family_recipe


@pytest.fixture
def file(tiny_family: Path, tmp_path: Path) -> Path:
    recipe = parse_recipe(family_recipe(tiny_family, "ties"), tiny_family)
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe, absolute=True))
    return tmp_path / "recipe.yaml"


def test_a_search_writes_a_recipe_and_goes_on(file: Path, tmp_path: Path, capsys):
    out = tmp_path / "best.yaml"
    words = ["search", str(file), "--output", str(out), "--examples", "5", "--options", "density"]
    words += ["--values", "density=[0.2, 0.5, 0.9]", "--objectives", "mean,worst"]
    assert main([*words, "--trials", "2"]) == 0
    said = capsys.readouterr().out
    assert "2 trials" in said
    assert "none beats" in said
    assert main([*words, "--trials", "9"]) == 2
    assert "--resume" in capsys.readouterr().err
    assert main([*words, "--trials", "9", "--resume", "--pick", "1"]) == 0
    assert "trial 1 is written" in capsys.readouterr().out
    first = load_recipe(out)
    assert first.options == {}  # trial 1 is the recipe as it is
    assert first.tuned is not None
    assert first.tuned.trials == 3
    assert still_tuned(first)
    assert main([*words, "--trials", "1", "--force"]) == 0
    assert "1 trials" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["search", "soup", "donors"])
def test_what_is_read_or_is_no_recipe_is_never_replaced(
    file: Path, tiny_family: Path, tmp_path: Path, capsys, command: str
):
    notes = tmp_path / "notes.yaml"
    notes.write_text("milk: 2\n")
    link = tmp_path / "link.yaml"
    link.symlink_to(file)
    for output, message in ((file, "found the recipe"), (link, "found the recipe"),
                            (notes, "a file of another kind"), (tmp_path, "a folder with"),
                            (tiny_family / "e0.stats.safetensors", "e0")):  # fmt: skip
        before = output.read_bytes() if output.is_file() else b""
        assert main([command, str(file), "--output", str(output), "--force"]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
        assert not output.is_file() or output.read_bytes() == before


def test_a_search_that_cannot_begin_keeps_the_journal_of_the_last(file: Path, tmp_path: Path):
    out = tmp_path / "best.yaml"
    words = ["search", str(file), "--output", str(out), "--examples", "5", "--trials", "1"]
    assert main(words) == 0
    journal = tmp_path / "best.yaml.journal"
    before = journal.read_bytes(), out.read_bytes()
    assert main([*words, "--force", "--options", "nonsense"]) == 2
    assert (journal.read_bytes(), out.read_bytes()) == before
    out.write_text("milk: 2\n")
    assert main([*words, "--resume"]) == 2
    assert out.read_text() == "milk: 2\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--values", "density"], "a knob and a list"),
        (["--resume"], "beside which the journal lies"),
        (["--method", "tiess"], "Did you mean 'ties'"),
        (["--trials", "1", "--pick", "5", "--examples", "3"], "that was merged"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence(file: Path, capsys, words: list[str], message: str):
    assert main(["search", str(file), *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
