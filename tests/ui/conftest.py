"""A manager over an empty process: folders, no model. And a folder of captioned pictures."""

from contextlib import contextmanager

import pytest
from PIL import Image

from lib_pivotal.errors import HostError
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.ui.tab import build_tab
from tests.ui.browser import Browser


class EmptyBackend:
    """What a page asks a process for; it has no model to lend."""

    def __init__(self, folder):
        self._folder = folder
        self.saved = []
        self.live = None
        self.model = None
        for name in ("lora", "runs"):
            (folder / name).mkdir(parents=True)

    def checkpoint(self):
        return "avatars.safetensors [aaf9a020]"

    def lora_folder(self):
        return self._folder / "lora"

    def runs_folder(self):
        return self._folder / "runs"

    def taken_names(self):
        return {"taken": "embeddings folder"}

    def token_ids(self, text):
        return list(text.lower().encode())

    def prompts(self):
        return None

    def loader_problems(self, path):
        return []

    def token_tables(self):
        return None

    def unet_shape(self, path):
        return None

    def clip_skip(self):
        return 2

    def adjusted(self, run):
        return run

    def model_info(self):
        return self.model

    def scanned_as(self, data):
        return data

    def check_ready(self):
        pass

    def set_live(self, on):
        self.live = on

    def live_name(self):
        return "pivotal-live"

    @contextmanager
    def exclusive(self, run):
        raise HostError("no checkpoint is loaded: load one first")
        yield

    def model_yield(self):
        raise AssertionError("no run gets so far")

    def load_checkpoint(self):
        pass

    def farewell(self):
        return ""

    def bundle_saved(self, path):
        self.saved.append(path)

    def taggers(self):
        return ()


@pytest.fixture
def backend(tmp_path):
    return EmptyBackend(tmp_path / "process")


@pytest.fixture
def manager(backend):
    return RunManager(backend)


@pytest.fixture
def pictures(tmp_path):
    """Five pictures of `aoi`, three of `hana`, one without a caption; 64 px."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    captions = [f"aoi, 1girl, blue hair, {place}" for place in ("park", "sea", "sky", "city", "hill")]
    captions += [f"hana, 1girl, green hair, {place}" for place in ("park", "sea", "sky")]
    for number, caption in enumerate(captions):
        Image.new("RGB", (64, 64), (number * 20, 90, 120)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(caption)
    Image.new("RGB", (64, 64), "red").save(folder / "IMG_0001.png")
    return folder


@pytest.fixture
def snapshot_of_run():
    """Makes a snapshot of a run in its middle."""
    base = {
        "id": "x", "name": "gekidol", "folder": "runs/x", "status": "training", "activity": "", "step": 30,
        "max_steps": 120, "phase": "joint", "step_seconds": 0.25, "eta_seconds": 22.4, "started_at": 0.0,
        "facts": {"embeddings": ["aoi", "hana"]}, "loss": {"steps": [1, 2, 3], "values": [0.5, 0.4, 0.3]},
        "embedding_norms": {"aoi": {"steps": [1, 2], "values": [0.3, 0.2]}}, "shares": {}, "explained": {},
        "validation": {"means": {}, "held_out": {}, "trained": {}, "best_step": None, "overfits": False, "said": ""},
        "learning_rates": {}, "images_seen": {},
        "notices": [], "files": [], "pictures": [], "ended": None, "needs_checkpoint": False,
    }  # fmt: skip
    return lambda **changes: {**base, **changes}


@pytest.fixture
def browser(manager, pictures):
    """The page, with the pictures scanned."""
    made = Browser(build_tab(manager))
    made.set("pivotal_data_folder", str(pictures))
    made.press("pivotal_scan")
    return made
