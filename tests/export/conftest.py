"""Finished merges of the tiny family, as the page makes them: statistics in the cache."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mats_core.export.portable import Finished
from mats_core.merging.pipeline import merge
from mats_core.recipes.family_file import load_family, measure_all

Finish = Callable[..., Finished]


@pytest.fixture(scope="session")
def own_family(tiny_family: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny family that files may be put into."""
    folder = tmp_path_factory.mktemp("own") / "family"
    shutil.copytree(tiny_family, folder)
    return folder


@pytest.fixture(scope="session")
def finish(own_family: Path) -> Finish:
    """`finish(method, options, **settings)`: a merge of that family, each made once."""
    family = load_family(own_family)
    statistics = measure_all(family)
    made: dict[str, Finished] = {}

    def make(method: str, options: dict[str, Any] | None = None, **settings: Any) -> Finished:
        key = repr((method, options, settings))
        if key not in made:
            recipe = family.recipe(method, options, statistics=statistics, **settings)
            name = f"{method} <b>&amp;</b>"
            made[key] = Finished("0a1b2c3d4e", name, family.name, recipe, merge(recipe))
        return made[key]

    return make
