"""The performance table's bookkeeping: ratios, verdicts, the page, two commits side by side."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from benchmarks.performance import compare, drawn, essential, gpu, page, results, rows, scaling
from benchmarks.performance.base import CannotRun, Line, Row, in_turns, relative
from benchmarks.performance.iterations import needed

MACHINE = {
    "processor": "a processor", "cores": 2, "threads": 2, "load": 0.5, "device": "no GPU",
    "versions": {"torch": "2"},
}  # fmt: skip


def test_a_ratio_says_how_many_times_better_or_how_much_more():
    faster = Line("case", ours=2.0, theirs=10.0, goal=5)
    assert (faster.ratio, faster.met) == (5.0, True)
    assert Line("case", ours=2.0, theirs=9.0, goal=5).met is False
    overhead = Line("case", ours=3.0, theirs=2.0, goal=1.5, at_most=True)
    assert (overhead.ratio, overhead.met) == (1.5, True)
    assert Line("case", ours=3.2, theirs=2.0, goal=1.5, at_most=True).met is False
    assert Line("case", ours=1.0, theirs=None, goal=2).met is None
    assert Line("case", ours=1.0, theirs=2.0).met is None
    # A goal for every layer is not met by the median.
    assert Line("case", ours=2.0, theirs=30.0, goal=10, least=6.0).met is False


def test_both_sides_take_turns():
    order: list[str] = []
    in_turns(lambda: order.append("ours"), lambda: order.append("theirs"), repeats=2)
    assert order == ["ours", "theirs"] * 3
    *_, one, other = in_turns(lambda: 1, lambda: 2, repeats=1, warm=False)
    assert (one, other) == (1, 2)


def test_names_of_rows_are_known_and_unique():
    names = [row.name for row in rows.ROWS]
    assert len(set(names)) == len(names)
    assert [row.name for row in rows.chosen(["esm"])] == ["esm"]
    with pytest.raises(KeyError, match="nonsense"):
        rows.chosen(["nonsense"])
    assert sum(row.minutes for row in rows.ROWS if not row.needs) <= 30


def test_a_row_that_cannot_run_says_why():
    def never():
        raise CannotRun("no such device")

    found = json.loads(results.one(Row("x", "work", "against", never, minutes=1)))
    assert found["cannot"] == "no such device"
    assert found["lines"] == []


def test_what_was_measured_is_kept_and_measured_again_only_when_asked(tmp_path, monkeypatch):
    asked: list[str] = []

    def measured(name, root):
        asked.append(name)
        return {"lines": [], "n": len(asked)}

    monkeypatch.setattr(results, "measured", measured)
    both = [Row(name, "w", "a", list, minutes=0) for name in ("one", "two")]
    file = tmp_path / "results.json"
    results.run(both[:1], file, again=False)
    results.run(both, file, again=False)
    assert asked == ["one", "two"]
    results.run(both[:1], file, again=True)
    assert asked == ["one", "two", "one"]
    assert {name: row["n"] for name, row in results.load(file).items()} == {"one": 3, "two": 2}


def kept(*lines: Line, **more) -> dict:
    return {
        "lines": [asdict(line) for line in lines], "seconds": 3.0, "machine": MACHINE,
        "commit": "abc1234", "date": "2026-01-01", **more,
    }  # fmt: skip


def test_the_page_tells_hits_misses_and_what_was_not_measured():
    told = page.page(
        {
            "esm": kept(Line("a case", 1.0, 2.0, goal=3, checks={"difference": 1e-6}, note="Why.")),
            "kfac-two": kept(Line("another", 1.0, 20.0, goal=3)),
            "gpu-esm": kept(cannot="no GPU was there"),
        }
    )
    assert "| a case | 1 s | 2 s | **2×** | ≥ 3× | **missed** |" in told
    assert "| another | 1 s | 20 s | **20×** | ≥ 3× | met |" in told
    assert "no GPU was there | – | – | – | | not measured |" in told
    assert "1.0e-06" in told
    assert "Why." in told
    assert "commit abc1234" in told
    assert "a processor, 2 cores, no GPU; torch 2" in told
    assert "Not measured yet: kfac-iterations" in told


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "0"), (3.14159, "3.14"), (12345.6, "12346"), (4e-6, "4.0e-06"), (None, "–"),
     (float("nan"), "–"), (7.0, "7")],
)  # fmt: skip
def test_numbers_have_three_digits(value, words):
    assert page.number(value) == words


def test_two_commits_are_compared_by_medians(monkeypatch, capsys, tmp_path):
    seconds = {"old": iter([1.0, 5.0, 1.0]), "new": iter([2.0, 2.1, 1.9])}

    class Place:
        def __init__(self, revision):
            self.revision = revision

        def __enter__(self):
            return self.revision

        def __exit__(self, *exception):
            pass

    def measured(name, root):
        return kept(Line("a case", next(seconds[root]), None), Line(root, 1.0, None))

    monkeypatch.setattr(compare, "checkout", Place)
    monkeypatch.setattr(compare, "measured", measured)
    assert compare.compare("old", "new", ["esm"], 3) == 1
    said = capsys.readouterr().out
    assert "esm · a case: 1 → 2 s (2.00×, SLOWER)" in said
    assert said.count("\n") == 1  # what only one of them has is not compared


def test_a_commit_is_checked_out_and_removed_again(monkeypatch):
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(compare, "_git", lambda *words: asked.append(words))
    with pytest.raises(RuntimeError), compare.checkout("main~1") as place:
        raise RuntimeError("a row failed")
    assert asked == [
        ("worktree", "add", "--quiet", "--detach", str(place), "main~1"),
        ("worktree", "remove", "--force", str(place)),
    ]


def test_iterations_are_counted_to_the_first_residual_that_suffices():
    assert needed((1.0, 0.2, 0.05, 0.01), 0.05) == 2
    assert needed((1.0, 0.2), 0.05) is None


def test_an_exponent_is_that_of_the_power_law():
    assert scaling.slope([1, 2, 4], [3.0, 24.0, 192.0]) == pytest.approx(3)


def test_drawn_statistics_are_positive_and_differ_between_tasks():
    layer = drawn.layer(drawn.Wideness(12, 9, tasks=3))
    grams = layer.measured("input_gram")
    assert grams is not None
    for gram in grams:
        assert float(torch.linalg.eigvalsh(gram.double()).min()) > -1e-7
    assert relative(grams[0], grams[1]) > 0.1
    again = drawn.layer(drawn.Wideness(12, 9, tasks=3)).measured("input_gram")
    assert again is not None
    assert torch.equal(grams[0], again[0])


def test_the_rows_of_a_gpu_run_anywhere_when_they_are_small(monkeypatch):
    monkeypatch.setattr(essential, "BLOCK", {(16, 8): (2, 1), (8, 16): (1, 1)})
    monkeypatch.setattr(essential, "TASKS", 2)
    monkeypatch.setattr(gpu, "ITERATIONS", 3)
    (line,) = gpu.kfac_rate("cpu")
    assert line.ours > 0
    assert line.theirs is not None
    assert line.theirs > 0
    (line,) = essential.merge("cpu")
    assert line.checks["largest difference of an update"] < 1e-3
    if not torch.cuda.is_available():
        with pytest.raises(CannotRun, match="no GPU"):
            gpu.esm()
