"""The sentences of docs/performance.md: what a row means, and why a goal is missed."""

HEAD = """# Performance

Written by `make bench` (`python -m benchmarks.performance run`, then `write`), which measures
what is missing from `benchmarks/performance/results.json`. Every row runs in a process of its
own; ours and theirs are measured in it one after the other or in turns, set-up included, and
both answers are compared. Ratios are of medians where a side ran more than once. Baselines are
ours, written from the papers' descriptions (`benchmarks/performance/published.py`), and tests
hold them to the published method's answer. Two commits are compared with `python -m
benchmarks.performance compare OLD NEW ROW …`, which runs the rows of both in turns and ends with
1 where one got slower."""

READINGS: dict[str, str] = {
    "kfac-iterations": """\
Statistics measured on real families; iterations are medians over layers, and the goal is held
against the layer with the smallest ratio. *Default*: traces normalised, δ = 0.1. The ratio to
residual 1e-4 is near ten in the median and below it on many layers; to 1e-3, where merges stop, it
is four to nine. What was tried for more, on the sample and text families
(iterations to 1e-4):

- *The rank-2 Van Loan approximation* of the whitened operator, jointly diagonalised, with the
  exact diagonal: between 0.7 and 1.2 times as many as the inverse of the mean factors. It shines
  where one task owns the operator; measured factors of these families do not look like that.
- *The exact diagonal in the eigenbasis of the mean factors*: the same ± 3, on one MLP layer 104
  against 80. *Traces as weights* of the sums: worse (34 against 27, 95 against 51).
- *Exact blocks*: for every output direction the inverse of its own mixture of input Grams, or
  the other way round: worse as well (23 to 64 against 22 to 41), even without clustering.
- *The leading quarter of directions solved exactly* inside the preconditioner: 32 → 22
  iterations, for more arithmetic than it saves.

What remains are the cross terms `B_m ⊗ A_n` of the mean factors' product. *Joint bases*
(`preconditioner: joint`) leave most of them out: in one basis all A_m, in another all B_m are
nearly diagonal, and the operator's diagonal there is divided by. At the defaults that halves the
iterations of the mean factors' inverse; with a hundredth of the damping it brings little. A basis
costs six to ten products with the operator, so it pays where it is remembered: it serves every
damping, tolerance and start. Page and panel begin with it; a single merge is quicker without.""",
    "kfac-error": """\
A residual says little about how near the merge is: where ours stops by default, at 1e-3, its update
still lacks 8 to 28 % of the solution on the sample family's square layers. So this row counts
iterations to one *error of the update*, 2 % of ‖W* − W₀‖, the solution W* being that of float64 to
a residual of 1e-11. Ten times is reached on every layer of both families, square or not, with joint
bases, and with the inverses of the mean factors on the square ones. The vision family was not built
for it.

The option `error` stops there: CG ends where ‖P⁻¹(b − K W)‖ / ‖W − W₀‖ is as small, P being the
preconditioner, which costs a norm an iteration. On these layers it stopped with 1.3 to 3.6 % where
2 % was asked for, and the report tells the estimate beside the residual. It is an estimate: with
δ = 0.001 and traces as measured P takes the smallest eigenvalues for larger ones, the estimate says
2 % where 25 to 120 % are missing, and plain CG is no nearer after 3,000 iterations. Rounding in
float32 alone leaves 0.2 to 10 % on the layers here, so more than that is not to be had there.""",
    "kfac-time": """\
The inverses of the mean factors cost two products an iteration, an M-th of the operator's 2 M,
and almost nothing to set up. They replaced turning the whole system into the eigenbases, where
the preconditioner is free but the turning costs as much as two iterations of a square layer and
six of a 4 : 1 one. The ratio of seconds is that of iterations less set-up and the certificate:
the residual told is computed from its definition, in the weight's own coordinates.

Misses: ten times at 1e-4 takes more than ten times fewer iterations, which the drawn layer (8) and
the text family (12, of which an eighth is the preconditioner's and more the set-up) do not give.

*Difference of the updates*: at one residual both are far apart on measured statistics with so
little damping. Directions that no task determines weigh nothing in the residual; the
preconditioned solve goes there at once, plain CG after thousands of iterations. The merges that
the study found best are damped a hundred times more, with normalised traces, and those are the
defaults.""",
    "kfac-wide": """\
The published solver is stopped after six times our iterations, where its residual is still eight
times the one asked for: the ratios are lower bounds, and a miss here says only that six times were
too few to show more. An iteration takes both about the same time.""",
    "kfac-two": """\
Two models need no iterations: generalised eigenvectors of both pairs of factors turn the
operator into an elementwise one.""",
    "esm-subspace": """\
The subspace comes from `Δ A Δᵀ` in float64. In float32 it would take half the time, but on
measured Grams the projected update is then off by 2e-6 to 7e-3 instead of 1e-12. With more
outputs than inputs two decompositions of the smaller side replace an SVD as wide as the outputs.
With more inputs than outputs the product `Δ A` alone, 2 d_out d_in² operations, costs as much as
the SVD of so few tokens: there a factor of the Gram (`measure --rank`) is the way. SciPy's `evr`
for the leading eigenvectors only is not faster than PyTorch's complete `eigh` here (768: 0.17
against 0.15 s, 1,536: 2.3 against 1.0 s on one thread).""",
    "esm": """\
Polar factors come from the eigendecomposition of a Gram in float64 where the condition allows it
(below 1e5, a third of the time of an SVD); elsewhere the strong directions do, and the weak ones
have an SVD of their own (768×3072 at a condition of 1e6: 0.47 CPU s for 1.64, 1536×1536: 1.29 for
2.7, within 1e-6 of the SVD's). This row was measured before that. The layer's status says which.
Where the goal is missed, the limit is one decomposition: of a block's time two fifths are the polar
factor of the 3072×3072 matrix of all tasks' output directions, and most of that is `eigh` in
float64, at 55 of the 70 GFLOP/s that products reach here. What was considered and counted instead:
QDWH and scaled Newton iterations take more operations (six times a Gram, a Cholesky factor and two
triangular solves), float32 loses the weak directions (condition 2e4), `Σ_t` has no structure that
its square root keeps.""",
    "statistics": """\
Both sides make the same products: forward, backward, two Grams and every example's gradient. The
ViT-B/32-shaped case has about 155 GFLOP of them for 16 examples, 1.5 s at this processor's rate on
one thread; nothing that keeps the Fisher exact makes eight times less. The sample model, 192 wide,
leaves more to be won by batches; what remains there are products too.""",
    "average-from-disk": """\
The floor reads into one block that stays in the processor's cache and adds nothing up. Beyond it
the merge multiplies and adds four tensors, takes a CRC-32 of what it writes (1.6 GB/s; `--resume`
goes by it), looks for numbers that are not finite and syncs the journal as well as the weights. The
next piece is read while one is merged, and the checksum is taken while the file is written. Files
that were never seen are read through once by SHA-256, 0.2 to 0.4 GB a second and thread on this
processor, and remembered until they change. Runs of this row on known files gave 2.3 to 4.4: what
other virtual machines take is missed twice where two threads work.""",
    "ties-from-disk": """\
A quarter to a third of our seconds is importing PyTorch. The thresholds are exact: a window from a
sample, one count over all entries. What is left is a dozen passes over 271 million numbers of each
of three checkpoints; runs of this row gave ratios of 5.9 and 7.3, as busy as the machine was.""",
    "start": """\
Nothing is imported before a command needs it: PyTorch alone is more than half of what is left,
transformers and SciPy are not loaded for an average.""",
    "scaling": """\
Exponents of time over the width d of a square layer, the number of tasks M and CG iterations, by
least squares of logarithms, beside those of the cost model that estimates a merge before it
runs. A merge is linear in its number of layers by construction: one after the other.""",
    "estimate": """\
The machine's speeds are measured just before each method's runs, as the page measures them once
in a process; on a shared machine they change by a factor of two within minutes, and no estimate
can be closer than that. Iterations of K-FAC are not known before: the classical bound for condition
number M stands for them.""",
    "gpu-counts": """\
Counted by PyTorch's dispatcher on the CPU, with its tensors taken for those of a GPU, for eight
experts; nothing here ran on a GPU, and none of it says how long anything takes there. A read is
what the processor waits for, a number or many at once. An iteration of K-FAC took 9 reads and 47
to 50 kernels before (7 and 42 without a preconditioner), a layer of TSV-M 65 reads, of ESM 58.
Numbers of an iteration stay on the device and are read for up to eight iterations at once, and at
most for half of those that are left at the rate of the residual so far; what is run past the end
is dropped. Blocks are stacked, which takes a copy of A and B on the device, where that is 512 MB
in float32 at most. TIES reads a sample of at most 2¹⁹ numbers an expert, and three numbers an
expert and pass; before, all entries of all experts went to the CPU. DARE draws on the CPU, for
one seed is to mean one mask wherever a merge runs, and PyTorch's generators of other devices draw
other numbers; what travels is a bit an entry, not a number. cuSOLVER's waits inside of a
decomposition are not seen here. TF32 is never switched on.""",
    "wide": """\
Matrices are merged one at a time, so memory is that of the largest and does not grow with the
model; statistics do. As matrices, A and B of one expert take more than its weights in bfloat16; K
rows for each Gram (`measure --rank K`, [format](statistics.md)) bound them, and their file says by
how much the Gram may be off. Hours are operations counted at the rates of the layer above, on this
machine, for four experts, without reading and writing; embeddings and output are averaged and not
counted. ESM grows fastest: it projects on as many directions as there are outputs, 4 d_out² d_in
operations.""",
    "cluster": """\
![Hours over workers](performance/cluster.svg)

What it says is read on [Beyond one machine](distributed.md#how-far-it-goes). Measured on this
machine are the first line and the real merges, on a machine as busy as its load says; assumed are
links of 1.25 GB/s a worker, a file system of 10 GB/s for all, and workers a hundred times as fast
as a core. Four experts, bfloat16; Grams of K-FAC in factors of 128 rows; embedding and output are
left out. A case names what is busy longest while the tasks run.""",
    "page": """\
The setting before was tested to its end, as the page does in the background; then the knob is
turned. Known answers of the setting before, plus the mean difference on the examples that both were
asked, are the estimate that the page shows, marked as one, until the other examples are asked. Its
interval holds for the population that the examples were drawn from, as all others do. The forwards
at the rate of all examples are the floor that is left beside the merge itself.""",
    "fairness": """\
In the app's own worker. A long merge lets those pass that are expected to take less than what is
left of it, between its layers and iterations; the other sessions come at different moments of it.
CPU seconds are of the whole process from the press to the number, so those of the K-FAC before it
steps aside are among them; where a machine is busy with other work, they say more than seconds.""",
    "sequential": """\
The second merge in a process, on one thread, in CPU seconds. Every part of a model that has its
final weights runs once a block: 24 products of d² a token in both streams where reaching every
stage anew took 54. Targets of layers with a residual stream are one product and Grams half of
one: 17 to 22 products of d², 43 before; B of a layer with more outputs than inputs stays in
factors. The whole merge took 20.5 CPU s before and 12.6 after, imports of 2.4 s included, in one
hour on a busy machine. Eight seconds on two cores, film included, are 16 CPU seconds, and the
products of both take about nine (654 GFLOP of a merge as counted here, 704 by PyTorch's own
counter, with every block's forward exactly once a stream): what lies above them is attention,
activations, norms, Cholesky factors, and vector operations of CG. Of the film's frames each runs
the block that it changes and those behind it, 14 blocks where five whole models are 20.""",
    "ray": "One thread a process, on two cores. See [Beyond one machine](distributed.md).",
}

TAIL = """## The explorer

[What a changed knob costs on the page](latency.md), before this work and after it. First merges by
TSV-M and Iso-CTS take half the time, TIES and the first K-FAC merge two thirds; a further K-FAC
setting takes as long as before or a little longer, for its preconditioner costs two products an
iteration where the eigenbases of an earlier setting used to be at hand.

*Floor of a moved knob.* Task arithmetic asks 640 examples for ± 3 points; at 0.7 ms an example,
the rate of all examples at once, these forwards are 0.45 CPU s of the 0.57 that a move costs
(0.63 to 0.71 before a file's state was looked at once a fingerprint). A goal of 0.3 needs fewer
examples. A moved knob of `sequential` changes every layer behind the first, so that the merge's
stream, its Grams and its solves, about 4 CPU s by their products, come anew whatever is
remembered of the experts."""
