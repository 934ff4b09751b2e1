"""What the web UI is busy with."""

from __future__ import annotations

import time


class State:
    skipped = False
    interrupted = False
    stopping_generation = False
    job = ""
    job_no = 0
    job_count = 0
    sampling_step = 0
    sampling_steps = 0
    time_start: float | None = None

    def interrupt(self) -> None:
        self.interrupted = True

    def skip(self) -> None:
        self.skipped = True

    def nextjob(self) -> None:
        self.job_no += 1
        self.sampling_step = 0

    def begin(self, job: str = "(unknown)") -> None:
        self.sampling_step, self.job_no, self.job_count = 0, 0, -1
        self.skipped = self.interrupted = self.stopping_generation = False
        self.time_start = time.time()
        self.job = job

    def end(self) -> None:
        self.job, self.job_count = "", 0
