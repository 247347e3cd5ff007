"""The literal table of merging methods: a new one is a file, a row here, a row in the tests."""

from __future__ import annotations

from . import average, describe, essential, fisher, kfac, kfac_matching, regmean, slerp, ties, tsv_m
from .cost import COSTS, Cost, Shape, passes, selection, times, together
from .essential import EssentialOptions, essential_subspace, essential_update, relative_power
from .kfac import STARTS, KfacOptions, kfac
from .method import (
    Layer,
    LayerStatistics,
    Merged,
    Method,
    Options,
    Treatment,
    Updates,
    but_matrices,
    every_tensor,
    norm,
    weighted_sum,
)
from .ties import threshold

_FISHER = frozenset({"fisher"})

_KFAC = frozenset({"input_gram", "output_gradient_gram"})

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            name="average",
            title="Average",
            group="weights",
            summary="The (weighted) mean of the experts: every direction counts the same.",
            formula=r"W = \sum_m \alpha_m W_m \,/\, \sum_m \alpha_m",
            source="model soups, arXiv 2203.05482; FedAvg, arXiv 1602.05629",
            options=average.AverageOptions,
            merge=average.average,
            pieces=every_tensor,
            reads_base=False,
        ),
        Method(
            name="slerp",
            title="SLERP",
            group="weights",
            summary="Two experts, met on the arc between them: what both share keeps its length, "
            "where a mean would shorten it.",
            formula=r"W = \frac{\sin((1-t)\,\theta)}{\sin\theta}\, W_1 + "
            r"\frac{\sin(t\,\theta)}{\sin\theta}\, W_2,\quad \theta = \angle(W_1, W_2)",
            source="Shoemake 1985; for weights mergekit, arXiv 2403.13257",
            options=slerp.SlerpOptions,
            merge=slerp.slerp,
            weighted=False,
            experts=2,
        ),
        Method(
            name="task_arithmetic",
            title="Task arithmetic",
            group="task vectors",
            summary="Adds up what each expert learned, scaled down so that the sum does not "
            "overshoot.",
            formula=r"W = W_0 + \lambda \sum_m \alpha_m \Delta_m",
            source="arXiv 2212.04089",
            options=average.ArithmeticOptions,
            merge=average.task_arithmetic,
            pieces=every_tensor,
        ),
        Method(
            name="ties",
            title="TIES",
            group="task vectors",
            summary="Keeps each expert's largest changes, elects a sign for every parameter, and "
            "averages those that agree.",
            formula=r"W = W_0 + \lambda\, \mathrm{mean}\{\hat\Delta_m : "
            r"\mathrm{sgn}\,\hat\Delta_m = \mathrm{sgn}\sum_s \hat\Delta_s\}",
            source="arXiv 2306.01708",
            options=ties.TiesOptions,
            merge=ties.ties,
            survey=ties.thresholds,
            surveys=ties.ties_surveys,
            pieces=every_tensor,
            piece=ties.ties_piece,
        ),
        Method(
            name="dare",
            title="DARE",
            group="task vectors",
            summary="Drops most of each expert's changes at random and enlarges the rest, so that "
            "they collide less.",
            formula=r"\tilde\Delta_m = \frac{z_m \circ \Delta_m}{1-p},\quad z_m \sim "
            r"\mathrm{Bernoulli}(1-p)",
            source="arXiv 2311.03099",
            options=ties.DareOptions,
            merge=ties.dare,
            pieces=every_tensor,
            piece=lambda options: ties.DRAWN_AT_ONCE,
        ),
        Method(
            name="fisher",
            title="Diagonal Fisher",
            group="statistics",
            summary="A mean in which each expert's parameters weigh as much as its predictions "
            "depend on them.",
            formula=r"W = \sum_m \alpha_m F_m \circ W_m \,/\, \sum_m \alpha_m F_m",
            source="arXiv 2111.09832",
            options=fisher.FisherOptions,
            merge=fisher.fisher,
            reads=lambda options: _FISHER,
            requires=_FISHER,
        ),
        Method(
            name="regmean",
            title="RegMean (input Gram)",
            group="statistics",
            summary="Per layer, the matrix whose outputs are closest to every expert's on that "
            "expert's own inputs.",
            formula=r"W = \Big(\sum_m \alpha_m W_m A_m\Big)\Big(\sum_m \alpha_m A_m\Big)^{-1}",
            source="arXiv 2212.09849",
            options=regmean.RegMeanOptions,
            merge=regmean.regmean,
            pieces=regmean.means_by_pieces,
            reads=regmean.regmean_reads,
            requires=frozenset({"input_gram"}),
            folds=lambda options: options.fold_bias,
        ),
        Method(
            name="kfac",
            title="K-FAC block (MaTS)",
            group="statistics",
            summary="Matches the experts in the directions their losses are curved in, by "
            "conjugate gradients.",
            formula=r"\sum_m \alpha_m B_m W A_m = \sum_m \alpha_m B_m W_m A_m",
            source="MaTS, arXiv 2312.04339",
            options=kfac.KfacOptions,
            merge=kfac.kfac,
            pieces=regmean.means_by_pieces,
            reads=kfac.kfac_reads,
            requires=frozenset({"input_gram", "output_gradient_gram"}),
            folds=lambda options: options.fold_bias,
        ),
        Method(
            name="tsv_m",
            title="TSV-M",
            group="task vectors",
            summary="Keeps each task's strongest singular directions and makes them orthogonal "
            "to one another.",
            formula=r"W = W_0 + \alpha\, U_\perp\, \mathrm{diag}(\sigma)\, V_\perp^\top",
            source="arXiv 2412.00081",
            options=tsv_m.TsvOptions,
            merge=tsv_m.tsv_m,
            pieces=but_matrices,
            weighted=False,
        ),
        Method(
            name="iso_c",
            title="Iso-C",
            group="task vectors",
            summary="Adds up the task matrices and makes every direction of the sum equally "
            "strong.",
            formula=r"W = W_0 + \alpha\, \bar\sigma\, U V^\top,\quad U \Sigma V^\top = "
            r"\sum_m \Delta_m",
            source="arXiv 2502.04959",
            options=tsv_m.IsoOptions,
            merge=tsv_m.iso_c,
            pieces=but_matrices,
            weighted=False,
        ),
        Method(
            name="iso_cts",
            title="Iso-CTS",
            group="task vectors",
            summary="Like Iso-C, with a share of the directions reserved for what only one task "
            "needs.",
            formula=r"W = W_0 + \alpha\, \bar\sigma\, [U_c\,U_1 \cdots U_T]_\perp\, "
            r"[V_c\,V_1 \cdots V_T]_\perp^\top",
            source="arXiv 2502.04959",
            options=tsv_m.IsoCtsOptions,
            merge=tsv_m.iso_cts,
            pieces=but_matrices,
            weighted=False,
        ),
        Method(
            name="essential",
            title="Essential Subspace Merging",
            group="statistics",
            summary="Keeps the directions in which each expert really moves its outputs, and lets "
            "strong tasks, dimensions and layers speak louder.",
            formula=r"W = W_0 + 2\alpha\, E_\perp C_\perp,\quad E_t = "
            r"\mathrm{eig}_r(\Delta_t A_t \Delta_t^\top),\ C_t = E_t^\top \Delta_t",
            source="arXiv 2602.20208",
            options=essential.EssentialOptions,
            merge=essential.essential,
            pieces=but_matrices,
            reads=essential.reads,
            rescale=essential.layer_factors,
            weighted=False,
        ),
        Method(
            name="gradient_matching",
            title="Gradient matching",
            group="statistics",
            summary="Task arithmetic in which curvature decides how far each parameter follows "
            "each expert.",
            formula=r"W = W_0 + \sum_m \alpha_m \bar H^{-1}(H_0 + H_m)\Delta_m,\quad "
            r"\bar H = H_0 + \sum_m \alpha_m H_m",
            source="arXiv 2310.12808",
            options=fisher.MatchingOptions,
            merge=fisher.gradient_matching,
            reads=lambda options: _FISHER,
            requires=_FISHER,
        ),
        Method(
            name="kfac_matching",
            title="K-FAC gradient matching",
            group="statistics",
            summary="Gradient matching with K-FAC blocks as curvature: directions decide, not "
            "single parameters.",
            formula=r"\left(H_0 + \sum_m \alpha_m H_m\right)(W - W_0) = "
            r"\sum_m \alpha_m (H_0 + H_m)\Delta_m,\quad H_m = B_m \otimes A_m",
            source="the K-FAC form of arXiv 2310.12808, not published before",
            options=kfac_matching.KfacMatchingOptions,
            merge=kfac_matching.kfac_matching,
            pieces=regmean.means_by_pieces,
            reads=kfac_matching.kfac_matching_reads,
            requires=_KFAC,
        ),
    )
}

__all__ = [
    "COSTS",
    "STARTS",
    "Cost",
    "EssentialOptions",
    "KfacOptions",
    "Layer",
    "LayerStatistics",
    "Merged",
    "Method",
    "Options",
    "Shape",
    "Treatment",
    "Updates",
    "average",
    "but_matrices",
    "describe",
    "essential",
    "essential_subspace",
    "essential_update",
    "every_tensor",
    "fisher",
    "kfac",
    "kfac_matching",
    "norm",
    "passes",
    "regmean",
    "relative_power",
    "selection",
    "slerp",
    "threshold",
    "ties",
    "times",
    "together",
    "tsv_m",
    "weighted_sum",
]
