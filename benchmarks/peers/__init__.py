"""Other tools beside this one, on the same files: `python -m benchmarks.peers FOLDER --write`.

Two peers, each in an environment of its own, because their dependencies are not ours:

    python3 -m venv mergekit-env
    mergekit-env/bin/pip install mergekit==0.1.5 torch==2.13.0
    python3 -m venv fusion-env
    fusion-env/bin/pip install fusion-bench==0.2.33 torch==2.13.0

(`torch==2.13.0` in both, so that the arithmetic below is the same.)  `--mergekit` and
`--fusion-bench` name the interpreters `mergekit-env/bin/python` and `fusion-env/bin/python`; so do
the environment variables `MATS_PEERS_PYTHON` and `MATS_FUSION_PYTHON`.  A peer without one is left
out, and the page says so.  FOLDER takes about 2 GB: checkpoints made on the spot, and what both
sides make of them.  The page is `docs/peers.md`.
"""
