"""Jobs that wait, by their ids."""

from __future__ import annotations

import time
from collections import OrderedDict

current_task: str | None = None
pending_tasks: OrderedDict[str, float] = OrderedDict()
finished_tasks: list[str] = []


def add_task_to_queue(id_job: str) -> None:
    pending_tasks[id_job] = time.time()
