"""How long a scan of 5,000 pictures takes, and the Data page with them: pages, filters, plan.

`python -m examples.bench_page` writes the pictures (1.6 GB; `--folder` keeps them for the next time) and prints the
seconds, by the clock and of processor time: a scan of a folder never seen, one from the cache, the page's Scan.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from examples.bench_pictures import EMBEDDINGS, write_pictures
from lib_pivotal.data.dataset import scan
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.standalone.page import StandaloneBackend
from lib_pivotal.ui.tab import build_tab

Cost = tuple[float, float]
"""Seconds by the clock, and of processor time of all threads."""


class Visitor:
    """Calls the page's events as a browser does, without one."""

    def __init__(self, blocks: Any) -> None:
        self._blocks = blocks
        self._ids = {getattr(b, "elem_id", None): n for n, b in blocks.blocks.items()}
        self._values = {n: getattr(b, "value", None) for n, b in blocks.blocks.items()}
        self._state = {n: b.value for n, b in blocks.blocks.items() if b.get_block_name() == "state"}

    def set(self, name: str, value: Any) -> None:
        """Write into an element."""
        self._values[self._ids[f"pivotal_{name}"]] = value

    def get(self, name: str) -> Any:
        """What an element holds."""
        return self._values[self._ids[f"pivotal_{name}"]]

    def press(self, name: str) -> Cost:
        """Press a button; what it takes until its answer."""
        target = self._ids[f"pivotal_{name}"]
        events = list(enumerate(self._blocks.dependencies))
        clicks = [pair for pair in events if target in pair[1]["targets"] and pair[1]["trigger"] == "click"]
        number, event = next(pair for pair in clicks if pair[1]["backend_fn"])
        inputs = json.loads(json.dumps([self._values[block] for block in event["inputs"]], default=str))
        clock, used = time.perf_counter(), time.process_time()
        answer = asyncio.run(self._blocks.process_api(number, inputs, state=self._state))["data"]
        taken = time.perf_counter() - clock, time.process_time() - used
        for block, value in zip(event["outputs"], answer, strict=True):
            if not (isinstance(value, dict) and value.get("__type__") == "update"):
                self._values[block] = value
            elif "value" in value:
                self._values[block] = value["value"]
        return taken


def median(act: Callable[[int], Cost], times: int = 5) -> Cost:
    """Of several runs, by the clock."""
    return sorted(act(number) for number in range(times))[times // 2]


def timed(act: Callable[[], Any]) -> Cost:
    """What something takes."""
    clock, used = time.perf_counter(), time.process_time()
    act()
    return time.perf_counter() - clock, time.process_time() - used


def measure_scans(visitor: Visitor, folder: Path, caches: Path) -> dict[str, Cost]:
    """The library's scan and the page's, each cold (the files' facts unknown) and from the cache."""
    visitor.set("data_folder", str(folder))
    found = {
        "scan of an unknown folder": timed(lambda: scan(folder, cache=caches / "a")),
        "scan again": min(timed(lambda: scan(folder, cache=caches / "a")) for _ in range(3)),
    }
    os.environ["PIVOTAL_CACHE"] = str(caches / "b")
    found["Scan on the page, unknown folder"] = timed(lambda: visitor.press("scan"))
    found["Scan on the page again"] = min(timed(lambda: visitor.press("scan")) for _ in range(3))
    return found


def measure(visitor: Visitor) -> dict[str, Cost]:
    """Each thing on the page."""
    found: dict[str, Cost] = {}

    def pressed(button: str, **values: Any) -> Cost:
        for name, value in values.items():
            visitor.set(name, value)
        return visitor.press(button)

    found["another page"] = median(lambda n: pressed("gallery_show", gallery_page=str(7 + 3 * n)))
    found["its 48 thumbnails"] = median(lambda n: _thumbs(visitor, n))
    for query in ("word:aoiko", "word:hanako, tag:hat, -tag:smile", "thing 17", "problem:1"):
        found[f"filter {query}"] = median(
            lambda n, q=query: pressed("gallery_show", gallery_filter=q, gallery_page=str(n))
        )
    visitor.set("gallery_filter", "")
    visitor.press("check")
    found["steps changed: plan and findings"] = median(lambda n: pressed("check", schedule_max_steps=900 + n))
    found["batch changed"] = median(lambda n: pressed("check", schedule_batch_size=2 + n))
    found["size changed"] = median(lambda n: pressed("check", data_resolution_px=512 + 64 * n))
    found["balance changed"] = median(lambda n: pressed("check", data_balance=("tree", "words", "repeats")[n]), 3)
    embeddings = json.loads(visitor.get("words"))

    def vectors(number: int) -> Cost:
        embeddings[0]["vectors"] = 5 + number
        return pressed("check", embeddings=json.dumps(embeddings))

    found["vectors of a word changed"] = median(vectors)
    moves = ("hat", "park", "sky", "city", "sea")
    found["a tag moved: table and captions"] = median(
        lambda n: pressed(
            "tags_move_now", tags_move=json.dumps({"word": embeddings[0]["name"], "tag": moves[n], "to": "absorbed"})
        )
    )
    found["plan after a moved tag"] = visitor.press("check")
    found["tags of another word"] = median(
        lambda n: pressed("tags_show", tags_view=json.dumps({"word": embeddings[n + 1]["name"]}))
    )
    return found


def _thumbs(visitor: Visitor, number: int) -> Cost:
    """As the browser asks for them, in threes."""
    visitor.set("gallery_page", str(30 + 2 * number))
    visitor.press("gallery_show")
    keys = [part.split('"')[0] for part in visitor.get("gallery").split('data-thumb="')[1:]]
    costs = []
    for start in range(0, len(keys), 16):
        visitor.set("thumbs_wanted", json.dumps(keys[start : start + 16]))
        costs.append(visitor.press("thumbs_get"))
    return sum(clock for clock, _ in costs), sum(used for _, used in costs)


def show(costs: Mapping[str, Cost]) -> None:
    """As lines of a table."""
    for name, (clock, used) in costs.items():
        print(f"| {name} | {clock:.2f} | {used:.2f} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--folder", type=Path, help="where the pictures are kept; those that are there stay")
    parser.add_argument("--scans-only", action="store_true", help="no pages, filters and plans")
    parsed = parser.parse_args()
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory(prefix="pivotal-bench-") as temporary:
        folder = parsed.folder or Path(temporary) / "pictures"
        write_pictures(folder, parsed.pictures)
        size_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        print(f"{parsed.pictures} pictures, {size_bytes / 1e9:.2f} GB, {len(EMBEDDINGS)} words, {os.cpu_count()} cores")
        time.sleep(2.5)  # files that have just been written are not kept in the cache
        backend = StandaloneBackend(root / "examples/avatars/weights/avatars.safetensors", Path(temporary) / "out")
        visitor = Visitor(build_tab(RunManager(backend)))
        print("| what | s | s of processor time |\n|---|---|---|")
        show(measure_scans(visitor, folder, Path(temporary)))
        show({} if parsed.scans_only else measure(visitor))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
