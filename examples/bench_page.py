"""How long the Data page takes with 5,000 pictures: scan, pages, filters, plan. `python -m examples.bench_page`."""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from lib_pivotal.runs.manager import RunManager
from lib_pivotal.standalone.page import StandaloneStudio
from lib_pivotal.ui.tab import build_tab

WORDS = (
    "aoiko",
    "hanako",
    "kazeko",
    "umiko",
    "yukiko",
    "sorako",
    "rinko",
    "meiko",
    "taroko",
    "jiroko",
    "sumiko",
    "noriko",
)
COLOURS = ("blue", "green", "red", "brown", "black", "blonde", "white", "pink", "purple", "orange", "silver", "grey")
TAGS = (
    "smile,frown,hat,park,sky,city,sea,night,school uniform,dress,looking at viewer,open mouth,standing,sitting,"
    "upper body,close-up,from side,glasses,scarf,rain,tree,cloud,blush,closed eyes,book,cup,flower,window"
).split(",")
SIZES = ((384, 576), (576, 384), (512, 512), (640, 400), (400, 720), (800, 800), (900, 540))


def write_pictures(folder: Path, count: int) -> None:
    """JPEG pictures of several shapes with captions of a dozen tags; a few words are common, others rare."""
    rng = random.Random(1)
    noise = [Image.effect_noise((w // 8, h // 8), 60).resize((w, h)).convert("RGB") for w, h in SIZES]
    for number in range(count):
        place = min(len(WORDS) - 1, int(rng.random() ** 1.7 * len(WORDS)))
        tags = [WORDS[place], "1girl", f"{COLOURS[place]} hair", f"{COLOURS[(place * 5 + 3) % 12]} eyes", "long hair"]
        tags = tags[:2] + [tag for tag in tags[2:] if rng.random() < 0.95] + rng.sample(TAGS, 8)
        tags += [f"thing {rng.randrange(600)}" for _ in range(3)]
        ground = rng.choice(noise)
        tint = Image.new("RGB", ground.size, tuple(rng.randrange(256) for _ in range(3)))
        file = folder / WORDS[place] / f"{number:05d}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.blend(ground, tint, 0.7).save(file, quality=85)
        file.with_suffix(".txt").write_text(", ".join(tags))


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

    def press(self, name: str) -> float:
        """Press a button; the seconds until its answer."""
        target = self._ids[f"pivotal_{name}"]
        events = list(enumerate(self._blocks.dependencies))
        clicks = [pair for pair in events if target in pair[1]["targets"] and pair[1]["trigger"] == "click"]
        number, event = next(pair for pair in clicks if pair[1]["backend_fn"])
        inputs = json.loads(json.dumps([self._values[block] for block in event["inputs"]], default=str))
        started = time.perf_counter()
        answer = asyncio.run(self._blocks.process_api(number, inputs, state=self._state))["data"]
        taken = time.perf_counter() - started
        for block, value in zip(event["outputs"], answer, strict=True):
            if not (isinstance(value, dict) and value.get("__type__") == "update"):
                self._values[block] = value
            elif "value" in value:
                self._values[block] = value["value"]
        return taken


def median(act: Callable[[int], float], times: int = 5) -> float:
    """Of several runs."""
    return sorted(act(number) for number in range(times))[times // 2]


def measure(visitor: Visitor, folder: Path) -> dict[str, float]:
    """Seconds of each thing."""
    found: dict[str, float] = {}

    def pressed(button: str, **values: Any) -> float:
        for name, value in values.items():
            visitor.set(name, value)
        return visitor.press(button)

    found["scan, first time"] = pressed("scan", data_folder=str(folder))
    found["scan again"] = visitor.press("scan")
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
    words = json.loads(visitor.get("words"))

    def vectors(number: int) -> float:
        words[0]["vectors"] = 5 + number
        return pressed("check", words=json.dumps(words))

    found["vectors of a word changed"] = median(vectors)
    moves = ("hat", "park", "sky", "city", "sea")
    found["a tag moved: table and captions"] = median(
        lambda n: pressed(
            "tags_move_now", tags_move=json.dumps({"word": words[0]["name"], "tag": moves[n], "to": "absorbed"})
        )
    )
    found["plan after a moved tag"] = visitor.press("check")
    found["tags of another word"] = median(
        lambda n: pressed("tags_show", tags_view=json.dumps({"word": words[n + 1]["name"]}))
    )
    return found


def _thumbs(visitor: Visitor, number: int) -> float:
    """As the browser asks for them, in threes."""
    visitor.set("gallery_page", str(30 + 2 * number))
    visitor.press("gallery_show")
    keys = [part.split('"')[0] for part in visitor.get("gallery").split('data-thumb="')[1:]]
    taken = 0.0
    for start in range(0, len(keys), 16):
        visitor.set("thumbs_wanted", json.dumps(keys[start : start + 16]))
        taken += visitor.press("thumbs_get")
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=5000)
    count = parser.parse_args().pictures
    root = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory(prefix="pivotal-bench-") as temporary:
        folder = Path(temporary) / "pictures"
        folder.mkdir()
        write_pictures(folder, count)
        studio = StandaloneStudio(root / "examples/avatars/weights/avatars.safetensors", Path(temporary) / "out")
        found = measure(Visitor(build_tab(RunManager(studio))), folder)
    print(f"{count} pictures, {len(WORDS)} words; seconds on the server, medians")
    for name, seconds in found.items():
        print(f"| {name} | {seconds:.3f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
