"""A quick test starts from the run before; its estimate is looked at and never kept."""

from __future__ import annotations

import pytest

from mats_core.evaluation import examiner
from pages.shared.views import results as view
from pages.shared.work import merge, runs, tested
from pages.shared.work.merge import Request
from pages.shared.work.prepare import Prepared
from tests.pages.work.test_again import prepared_from, tell


@pytest.fixture
def prepared(tiny_family, tmp_path, monkeypatch) -> Prepared:
    monkeypatch.setenv("MATS_RESULTS", str(tmp_path))
    for name in ("ROUND", "LEAST", "FEW"):
        monkeypatch.setattr(examiner, name, 8)
    return prepared_from(tiny_family)


def asked(prepared: Prepared, scaling: float, precision: float | None = None) -> Request:
    names = tuple(expert.name for expert in prepared.collection.experts)
    return Request(
        prepared.collection, "task_arithmetic", {"scaling": scaling}, names, precision=precision
    )


def test_an_estimate_is_marked_and_not_kept_and_all_answers_replace_it(prepared):
    def ready() -> Prepared:
        return prepared

    family = prepared.collection.name
    merge.merge(asked(prepared, 0.30), ready, tell)
    request = asked(prepared, 0.301, precision=0.5)
    outcome = merge.merge(request, ready, tell, carried=True)
    run = outcome.run
    label = tested.estimated_from(outcome.report)
    assert label == runs.everything(family)[0].label
    assert outcome.report.left

    def kept() -> runs.Run:
        return next(one for one in runs.everything(family) if one.id == run.id)

    assert not tested.estimated_from(kept().report), "what is on the disk are answers"
    looked = tested.with_estimates(kept())
    assert looked.report.tasks == outcome.report.tasks
    said = view._tested(looked.report, following=True)
    assert said.startswith(f"Estimated from the run before, {label}: ")
    assert said.endswith("follow and replace it.")

    merge.refine(request, outcome, ready, tell)
    assert not kept().report.left
    assert tested.with_estimates(kept()) == kept()
    plain = merge.merge(asked(prepared, 0.301), ready, tell)
    assert plain.report.tasks == kept().report.tasks


def test_a_test_starts_from_the_newest_run_of_its_method_that_was_asked_everything(prepared):
    names = tuple(expert.name for expert in prepared.collection.experts)
    family = prepared.collection.name
    assert tested.before(family, "task_arithmetic", names) is None
    outcome = merge.merge(asked(prepared, 0.4), lambda: prepared, tell)
    found = tested.before(family, "task_arithmetic", names)
    assert found is not None
    assert found.results == outcome.report.tasks
    assert tested.before(family, "ties", names) == found, "where there is none of its method"
    assert tested.before(family, "task_arithmetic", names[:-1]) is None, "of other experts"
    runs.change(outcome.run, shipped="Shipped with the family")
    assert tested.before(family, "task_arithmetic", names) is None, "of another machine"
