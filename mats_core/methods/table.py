"""The literal table of merging methods: a new one is a file, a row here, a row in the tests."""

from __future__ import annotations

from . import (
    average,
    breadcrumbs,
    consensus,
    dare,
    dc_merge,
    della,
    essential,
    fisher,
    gradient_matching,
    iso,
    karcher,
    kfac,
    kfac_matching,
    model_stock,
    regmean,
    sce,
    sequential,
    slerp,
    task_arithmetic,
    ties,
    tsv_m,
)
from .method import Method
from .spaces import in_spaces

METHODS: dict[str, Method] = {
    method.name: in_spaces(method)
    for method in (
        average.METHOD,
        slerp.METHOD,
        karcher.METHOD,
        task_arithmetic.METHOD,
        ties.METHOD,
        dare.METHOD,
        della.METHOD,
        breadcrumbs.METHOD,
        consensus.METHOD,
        model_stock.METHOD,
        sce.METHOD,
        fisher.METHOD,
        regmean.METHOD,
        kfac.METHOD,
        tsv_m.METHOD,
        dc_merge.METHOD,
        iso.ISO_C,
        iso.ISO_CTS,
        essential.METHOD,
        gradient_matching.METHOD,
        kfac_matching.METHOD,
        sequential.METHOD,
    )
}

SIMPLEST = average.METHOD.name  # needs least of everything: what is proposed where memory is short
