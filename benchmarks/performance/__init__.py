"""How fast, against what, and with the same answer: `python -m benchmarks.performance`.

    list                     the rows and what each is compared with
    run [ROW …]              measure rows (all that are missing from the results, unless named)
    write                    docs/performance.md and its plots, from the results
    compare OLD NEW [ROW …]  the same rows at two commits, in turns; exit code 1 if one is slower

A row measures our way and another one in the same process, in turns, with the set-up that each
needs, and checks that both give the same answer.  Ratios are of medians.
"""
