"""A trial in a real web UI: the run is started, watched and continued over the API; the demands are the same.

One web UI serves many trials; one that was killed, or whose model is not as before, is started again.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import random
import shutil
import tempfile
import threading
import time
import traceback
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lib_pivotal.config import run_to_dict
from tests.faults.kinds import Act, Kind
from tests.faults.material import NAME, VARIANTS, Expected, lay_out, settings_of, tensors_of
from tests.faults.trial import OWN_NAMES, Result, Trial, listing
from tests.faults.webui.board import BOARD, DATA, Board, sendable
from tests.faults.webui.folders import MADE, WebUIFolders
from tests.faults.webui.kinds import ALL_KINDS, AtAStep, Nothing
from tests.live.conftest import (
    ROOT,
    Installation,
    RequestFailedError,
    WebUI,
    find_checkpoint,
    find_installation,
    lay_out_data,
    no_live_previews,
    started,
)

LONGEST_S = 300.0
"""A run that takes longer hangs; an undisturbed one takes a few seconds."""
ITS_OWN = ("cache/", "tmp/", "config.json", "ui-config.json", "params.txt", "webui.log", "temporary/gradio/")
"""Files that the web UI itself writes into its data folder."""
GONE = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
SCRIPT = f"""\
import sys

from modules import script_callbacks

sys.path.insert(0, {str(ROOT)!r})
from tests.faults.webui.agent import add_routes

script_callbacks.on_app_started(add_routes)
"""


class Backend:
    """The web UI: started when it is needed, and again where it is gone."""

    def __init__(self, installation: Installation, folder: Path) -> None:
        checkpoint = find_checkpoint()
        if isinstance(checkpoint, str):
            raise RuntimeError(checkpoint)
        folder.mkdir()
        self.data = folder / "data"
        self.board_path = folder / "board"
        self.board = Board(self.board_path)
        self.checkpoint = checkpoint.stem
        self.second = f"{checkpoint.stem}-second"
        self.picture = self.weights = ""
        self.starts = 0
        self.reloading = False
        self._installation = installation
        self._stack = contextlib.ExitStack()
        self._webui: WebUI | None = None
        lay_out_data(self.data, checkpoint)
        models = self.data / "models" / "Stable-diffusion"
        self.checkpoint_file = models / checkpoint.name
        self.sha256 = hashlib.sha256(self.checkpoint_file.read_bytes()).hexdigest()
        for ending in (".safetensors", ".yaml"):
            shutil.copyfile(models / f"{self.checkpoint}{ending}", models / f"{self.second}{ending}")
        (self.data / "extensions" / "sd-webui-pivotal").symlink_to(ROOT, target_is_directory=True)
        scripts = self.data / "extensions" / "zz-faults" / "scripts"
        scripts.mkdir(parents=True)
        (scripts / "faults_agent.py").write_text(SCRIPT, encoding="utf-8")
        self.folders = WebUIFolders(self.data)

    @property
    def alive(self) -> bool:
        """Whether its process is there."""
        return self._webui is not None and self._webui.process.poll() is None

    @property
    def webui(self) -> WebUI:
        """Running, with the first checkpoint."""
        if self._webui is None or not self.alive:
            self.close()
            variables = {
                BOARD: str(self.board_path),
                DATA: str(self.data),
                "TMPDIR": str(self.folders.temporary),
                "PIVOTAL_CACHE": str(self.data / "home" / "cache"),
            }
            self._webui = self._stack.enter_context(
                started(self._installation, self.data, page=True, variables=variables)
            )
            self.starts += 1
            self._wait_until_it_answers()
            no_live_previews(self._webui)
            self._webui.use(self.checkpoint)
            picture, model = self.look()
            if not self.picture:
                self.picture, self.weights = picture, model["weights"]
        return self._webui

    def look(self) -> tuple[str, dict[str, Any]]:
        """The seed's picture as a hash, and the model (in this order: a picture without a LoRA takes it out)."""
        assert self._webui is not None
        picture = self._webui.txt2img("1girl, red hair, smile", steps=3, seed=7).image.tobytes()
        return hashlib.sha256(picture).hexdigest(), self._webui.call("/faults/look")

    def reload_page(self) -> None:
        """As the button "Reload UI" does; returns when it answers again.

        Nobody asks meanwhile: a request while v1.10.1 adds its routes ends it ("Cannot add middleware after an
        application has started"), with or without this extension.
        """
        webui = self.webui
        self.reloading = True
        before = webui.log_text().count("Startup time:")
        webui.call("/faults/reload", {})
        deadline = time.monotonic() + LONGEST_S
        while webui.log_text().count("Startup time:") == before and self.alive and time.monotonic() < deadline:
            time.sleep(0.1)
        self.reloading = False
        self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> None:
        assert self._webui is not None
        deadline = time.monotonic() + LONGEST_S
        while time.monotonic() < deadline and self.alive:
            with contextlib.suppress(RequestFailedError, *GONE):
                self._webui.call("/faults/look", timeout_s=60)
                return
            time.sleep(0.2)
        raise RuntimeError("the web UI does not answer")

    def log_tail(self) -> str:
        """What the web UI has said last."""
        return "" if self._webui is None else self._webui.log_text()[-1500:]

    def clear(self) -> None:
        """What trials have left; the web UI's own things stay."""
        folders = self.folders
        folders.run = None
        for name in MADE:
            shutil.rmtree(self.data / name, ignore_errors=True)
        for path in folders.temporary.iterdir():
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
        folders.__post_init__()

    def close(self) -> None:
        """End it."""
        self._webui = None
        self._stack.close()


class WebUITrial(Trial):
    """The same judge; runs are those of the web UI."""

    nothing_to_continue = ("with a saved state", "cannot continue")

    def __init__(self, backend: Backend, expected: Expected, kind: Kind, result: Result, root: Path) -> None:
        self.backend = backend
        super().__init__(backend, expected, kind, result, root)  # type: ignore[arg-type]  # what it asks of material
        self.folders = backend.folders
        self.run_id = ""
        self._meanwhile: threading.Thread | None = None

    # ---- what `Trial` asks of its material ----

    @property
    def webui(self) -> WebUI:
        """The running one."""
        return self.backend.webui

    def run(self) -> None:
        self.backend.clear()
        lay_out(self.folders)
        assert self.webui  # started before files are listed
        self.kind.prepare(self.folders, self.settings)
        try:
            others = self.files()
            first = self._first()
            self.kind.between(self)
            self._look_at_the_end(first)
            self._look_outside(others, first)
        finally:
            self.kind.clear(self.folders)
        same_file = hashlib.sha256(self.backend.checkpoint_file.read_bytes()).hexdigest() == self.backend.sha256
        self.demand("weights", same_file, "the checkpoint's file has changed")

    def original(self, path: Path) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            lay_out(WebUIFolders(Path(folder)))
            return (Path(folder) / path.relative_to(self.folders.root)).read_bytes()

    def disturb_continuing(self, plant: Callable[[Act], None]) -> None:
        if self.states():
            self.process(resume=True, plant=plant, again=True)

    # ---- runs ----

    def _first(self) -> dict[str, Any]:
        if self.kind.name != "two runs at once, one name":
            return self.process(plant=self.kind.plant)
        answers = list[str]()

        def post() -> None:
            try:
                answers.append(self.post_run()["id"])
            except RequestFailedError as error:
                answers.append(str(error))

        self.backend.board.clear()
        clients = [threading.Thread(target=post) for _ in range(2)]
        for client in clients:
            client.start()
            time.sleep(self.settings["wait_s"])
        for client in clients:
            client.join()
        refused = [answer for answer in answers if ": 4" in answer]
        self.demand("kept", len(refused) == 1 and "in progress" in refused[0], f"two runs of one name: {answers}")
        note: dict[str, Any] = {"told": []}
        self._watch(self.webui.call("/pivotal/v1/runs/current"), note)
        return self._judged(note)

    def post_run(self) -> Any:
        """Ask for the run; the API's answer."""
        settings = run_to_dict(settings_of(self.result.variant, self.folders))
        return self.webui.call("/pivotal/v1/runs", {**settings, "overwrite": self._overwrite})

    def process(  # type: ignore[override]
        self,
        *,
        resume: bool = False,
        plant: Callable[[Act], None] | None = None,
        again: bool = False,
        **_: Any,
    ) -> dict[str, Any]:
        """A run from start to end, as a note; what every run owes is demanded here."""
        webui, note = self.webui, dict[str, Any](told=[])
        self.backend.board.clear()
        if plant is not None:
            order = {"kind": self.kind.name, "settings": sendable(self.settings), "again": again}
            webui.call("/faults/plant", order)
        try:
            if resume:
                answer = webui.call(f"/pivotal/v1/runs/{self.run_id}/continue", {"overwrite": self._overwrite})
            else:
                answer = self.post_run()
        except RequestFailedError as error:
            note["refused"] = str(error)
        except GONE:
            pass  # killed as it began
        else:
            self._watch(answer, note)
        return self._judged(note)

    def release(self) -> None:
        """The run that has called may go on."""
        self.backend.board["released"] = self.backend.board["calls"]

    def _watch(self, answer: dict[str, Any], note: dict[str, Any]) -> None:
        """Until the run has ended, the web UI is gone, or it takes too long."""
        self.run_id, self.folders.run = answer["id"], Path(answer["folder"])
        deadline = time.monotonic() + LONGEST_S
        while time.monotonic() < deadline:
            if self.backend.board["calls"] > self.backend.board["released"] and self._meanwhile is None:
                self._begin_meanwhile()
            while self.backend.reloading:
                time.sleep(0.05)
            with contextlib.suppress(*GONE, RequestFailedError):
                view = self.backend.webui.call(f"/pivotal/v1/runs/{self.run_id}") if self.backend.alive else None
                if view is not None and view["ended"]:
                    self._take(view, note)
                    break
            if not self.backend.alive:
                break
            time.sleep(0.03)
        else:
            note["hangs"] = True
        if self._meanwhile is not None:
            self._meanwhile.join(LONGEST_S)
            self._meanwhile = None

    def _take(self, view: dict[str, Any], note: dict[str, Any]) -> None:
        ended = view["ended"]
        note["told"] = [one["message"] for one in view["notices"]]
        if ended["reason"] == "failed" and self.backend.board["first_step"] < 0:
            note["refused"] = ended["message"]
        else:
            note |= {"reason": ended["reason"], "message": ended["message"], "bundle": ended["bundle"]}

    def _begin_meanwhile(self) -> None:
        kind = self.kind
        assert isinstance(kind, AtAStep)

        def work() -> None:
            try:
                kind.meanwhile(self)
            except Exception as error:
                told = f"{type(error).__name__}: {error}\n{traceback.format_exc()[-1200:]}"
                self.demand("answers", False, told)
            finally:
                self.release()

        self._meanwhile = threading.Thread(target=work)
        self._meanwhile.start()
        if not kind.releases_itself:
            time.sleep(0.15)
            self.release()

    def _judged(self, note: dict[str, Any]) -> dict[str, Any]:
        """What is known after a run, however it ended, and what every run owes."""
        board, backend = self.backend.board, self.backend
        note["steps"], note["saved"] = board["steps"], board["saved"]
        if board["first_step"] >= 0:
            note["first_step"] = board["first_step"]
        self._saved_step = max(self._saved_step, note["saved"])
        note["killed"] = not backend.alive
        if note.get("hangs"):
            self.demand("ended", False, f"hangs: more than {LONGEST_S:.0f} s\n{backend.log_tail()}")
            note["killed"] = True
            backend.close()
        elif note["killed"]:
            self.demand("ended", self.kind.may_kill, f"the web UI has died:\n{backend.log_tail()}")
            backend.close()
        else:
            self.demand("ended", True, "")
            self._look_at_the_model()
        return note

    def _look_at_the_model(self) -> None:
        backend = self.backend
        try:
            picture, model = backend.look()
        except (RequestFailedError, *GONE) as error:
            self.demand("answers", False, f"no picture can be made: {error}\n{backend.log_tail()}")
            backend.close()
            return
        self.demand("answers", True, "")
        told = f"the checkpoint's parameters have changed: {model['changed']}"
        same = self.demand("weights", model["weights"] == backend.weights, told)
        same &= self.demand("picture", picture == backend.picture, "the picture of a seed has changed")
        if not same:
            backend.close()

    # ---- files ----

    def files(self) -> dict[str, str]:
        """Without what is the web UI's own, and without links to this project."""
        found = listing(self.folders.root)
        return {name: known for name, known in found.items() if not name.startswith((*ITS_OWN, "extensions/"))}

    @staticmethod
    def is_own(name: str, told: str, *, litter: bool) -> bool:
        """The run's folder, its name in models/Lora, its cache, or a place that it told of."""
        for folder in ("pivotal_runs/", "cache_latents/"):
            if name.startswith(folder):
                return True
        if name.startswith("models/Lora/"):
            return name.removeprefix("models/Lora/").lstrip(".").startswith((*OWN_NAMES, "pivotal-live"))
        if name.startswith("temporary/"):
            return litter or name.split("/")[1] in told
        return False


class WebUICampaign:
    """Trials in a web UI; each variant is run once undisturbed."""

    kinds = ALL_KINDS

    def __init__(self, seed: int, folder: Path) -> None:
        installation = find_installation()
        if isinstance(installation, str):
            raise RuntimeError(installation)
        self._seed, self._folder = seed, folder
        self.backend = Backend(installation, folder / "webui")
        self._expected: dict[str, Expected] = {}

    def trial(self, number: int) -> Result | None:
        """The trial of this number: kinds take turns, all else is drawn. None where this system has no such fault."""
        rng = random.Random(f"faults in a web UI {self._seed} {number}")
        kind, variant = ALL_KINDS[number % len(ALL_KINDS)], rng.choice(VARIANTS)
        if not kind.available():
            return None
        if variant not in self._expected:
            self._expected[variant] = self._undisturbed(variant)
        expected = self._expected[variant]
        result = Result(number, kind.name, variant, kind.draw(rng, expected.moments), backend="web UI")
        return self._try_one(expected, kind, result)

    def _undisturbed(self, variant: str) -> Expected:
        with self._place() as root:
            result = Result(0, "none", variant, {})
            trial = WebUITrial(self.backend, Expected({}), Nothing(), result, root)
            self.backend.clear()
            lay_out(trial.folders)
            note = trial.process(plant=Nothing().plant)
            if note.get("reason") != "finished" or not result.good:
                raise RuntimeError(
                    f"the undisturbed run {variant} failed: {note} {result.why} {self.backend.log_tail()}"
                )
            counts = self.backend.webui.call("/faults/look")["counts"]
            return Expected(tensors_of(trial.folders.loras / f"{NAME}.safetensors"), counts)

    def _try_one(self, expected: Expected, kind: Kind, result: Result) -> Result:
        began = time.perf_counter()
        with self._place() as root:
            trial = WebUITrial(self.backend, expected, kind, result, root)
            try:
                trial.run()
            except (Exception, pytest.fail.Exception) as error:
                told = f"{type(error).__name__}: {error}\n{traceback.format_exc()[-1500:]}"
                result.why.append(f"the trial itself failed: {told}")
                self.backend.close()
        result.seconds = time.perf_counter() - began
        return result

    @contextlib.contextmanager
    def _place(self) -> Iterator[Path]:
        root = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            yield root
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def close(self) -> None:
        """End the web UI."""
        self.backend.close()
