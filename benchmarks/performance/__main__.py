"""The command line; see the package's text."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mats_core.system import set_waiting

set_waiting()  # both sides wait as the app's threads do

from . import compare, page, results
from .rows import ROWS, chosen


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.performance")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the rows and what each is compared with")
    run = commands.add_parser("run", help="measure rows")
    run.add_argument("rows", nargs="*", metavar="ROW")
    run.add_argument("--results", type=Path, default=results.FILE, help="where they are kept")
    run.add_argument("--again", action="store_true", help="also those that are there")
    one = commands.add_parser("one", help="measure one row here and print it as JSON")
    one.add_argument("row")
    commands.add_parser("write", help="docs/performance.md from the results")
    versus = commands.add_parser("compare", help="the same rows at two commits, in turns")
    versus.add_argument("old")
    versus.add_argument("new")
    versus.add_argument("rows", nargs="+", metavar="ROW")
    versus.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    try:
        if asked.command == "list":
            print(
                "\n".join(f"{r.name:24}{r.minutes:5.1f} min  {r.work} — {r.against}" for r in ROWS)
            )
        elif asked.command == "run":
            results.run(chosen(asked.rows), asked.results, again=asked.again or bool(asked.rows))
        elif asked.command == "one":
            print(results.one(chosen([asked.row])[0]))
        elif asked.command == "write":
            page.write()
        else:
            return compare.compare(asked.old, asked.new, asked.rows, asked.repeats)
    except KeyError as error:
        print(f"no row {error}; there are: {', '.join(row.name for row in ROWS)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
