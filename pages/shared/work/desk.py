"""A session's way to the worker of all sessions."""

from __future__ import annotations

from .jobs import Job, Worker


class Desk:
    """A session's way to the worker; when the session ends, its jobs are cancelled, but for those
    that last."""

    def __init__(self, worker: Worker) -> None:
        self._worker, self._jobs = worker, list[Job]()

    def submit(self, job: Job) -> Job:
        self._jobs = [*(j for j in self._jobs if j.active), job]
        return self._worker.submit(job)

    def attend(self, pages: int) -> None:
        self._worker.attend(pages)

    def ahead(self, job: Job) -> int:
        return self._worker.ahead(job)

    def named(self, name: str) -> Job | None:
        return self._worker.named(name)

    def finished(self, name: str) -> Job | None:
        return self._worker.finished(name)

    def close(self) -> None:
        for job in self._jobs:
            if not job.lasting:
                job.cancel()
