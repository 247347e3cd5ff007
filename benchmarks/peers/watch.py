"""`python -I -S watch.py FILE COMMAND …`: runs a command and writes what it took to FILE as JSON.

A process of its own, and a small one: Linux counts the memory of whoever starts a process into that
process's peak, so that a benchmark that has PyTorch loaded could not see a peak below its own.
Nothing but the standard library.
"""

import json
import os
import subprocess
import sys
import time

TICK = 0.02  # seconds between two looks at the process


def anonymous(pid: int) -> int:
    """Bytes of a process that are no file's pages; 0 where the system does not tell."""
    try:
        with open(f"/proc/{pid}/status") as status:
            lines = [line for line in status if line.startswith("RssAnon:")]
    except OSError:
        return 0
    return int(lines[0].split()[1]) * 1024 if lines else 0


def main(file: str, command: list[str]) -> None:
    begun, largest = time.perf_counter(), 0
    process = subprocess.Popen(command)
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        largest = max(largest, anonymous(process.pid))
        time.sleep(TICK)
    taken = {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.perf_counter() - begun,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "anonymous": largest,
    }
    with open(file, "w") as handle:
        json.dump(taken, handle)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
