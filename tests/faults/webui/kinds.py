"""What only a run in a web UI can meet: other checkpoints, Reload UI, Interrupt, browsers, other people's pictures.

At a drawn step the run calls; what then happens (`meanwhile`) comes from outside, as a user's clicks and requests do.
"""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.faults.kinds import KINDS, Act, Kind, Settings
from tests.faults.material import NAME, STEPS

CHROMIUM = Path(os.environ.get("PIVOTAL_CHROMIUM", "/usr/bin/chromium"))
PROMPTS = ("1girl, smile", f"1girl, smile, <lora:{NAME}:1>", "aoi, smile", f"aoi, hana, <lora:{NAME}:0.7>")


class AtAStep(Kind):
    """From outside, when the run has done a drawn number of steps (0: when it begins)."""

    releases_itself = False
    """Whether `meanwhile` says (`trial.release`) when the run may go on; else that is as soon as it has begun."""

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        return {"step": rng.randrange(STEPS)}

    def plant(self, act: Act) -> None:
        act.after_step(act.settings["step"], act.call)

    def meanwhile(self, trial: Any) -> None:
        """In a thread of its own. Returns when it is over, with the run free to go on."""
        raise NotImplementedError


class CheckpointSwitched(AtAStep):
    """Another checkpoint is chosen, a picture made with it, and the first one brought back."""

    name = "checkpoint switched"

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        drawn = {"picture": rng.random() < 0.7, "back": rng.choice(["chosen", "button"]), "wait_s": rng.choice([0, 1])}
        return {**super().draw(rng, counts), **drawn}

    def meanwhile(self, trial: Any) -> None:
        webui, first, second = trial.webui, trial.backend.checkpoint, trial.backend.second
        webui.use(second)
        if trial.settings["picture"]:
            webui.txt2img("1girl", steps=2)
        time.sleep(trial.settings["wait_s"])
        view = webui.call("/pivotal/v1/runs/current")
        if trial.settings["back"] == "button" and view["needs_checkpoint"]:
            webui.call(f"/pivotal/v1/runs/{view['id']}/checkpoint", {})
        webui.use(first)


class ReloadUI(AtAStep):
    """Settings > Reload UI: the server ends and starts again in the same process."""

    name = "Reload UI"

    def meanwhile(self, trial: Any) -> None:
        trial.backend.reload_page()


class Interrupted(AtAStep):
    """Interrupt or Skip is pressed, while a picture of somebody else is made, or the run's own."""

    name = "Interrupt"

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        drawn = {"what": rng.choice(["interrupt", "skip"]), "picture": rng.random() < 0.5, "times": rng.randint(1, 20)}
        return {**super().draw(rng, counts), **drawn}

    def meanwhile(self, trial: Any) -> None:
        webui = trial.webui
        picture = threading.Thread(target=lambda: webui.txt2img("1girl", steps=15))
        if trial.settings["picture"]:
            picture.start()
        for _ in range(trial.settings["times"]):
            webui.call(f"/sdapi/v1/{trial.settings['what']}", {})
            time.sleep(0.05)
        if trial.settings["picture"]:
            picture.join()


class PicturesMeanwhile(AtAStep):
    """Pictures are made during the run: with its embeddings' names, with its last bundle, of other sizes."""

    name = "pictures during the run"

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        prompts = [rng.choice(PROMPTS) for _ in range(rng.randint(1, 4))]
        live = rng.random() < 0.3
        return {**super().draw(rng, counts), "prompts": prompts, "live": live, "width": rng.choice([64, 128])}

    def meanwhile(self, trial: Any) -> None:
        webui = trial.webui
        if trial.settings["live"]:
            webui.call("/pivotal/v1/live", {"on": True})
        try:
            for prompt in trial.settings["prompts"]:
                webui.txt2img(prompt, steps=2, width=trial.settings["width"])
            if trial.settings["live"]:
                webui.txt2img("aoi, <lora:pivotal-live:1>", steps=2)
        finally:
            if trial.settings["live"]:
                webui.call("/pivotal/v1/live", {"on": False})


class ClientsAtOnce(AtAStep):
    """Several clients at the same time: pictures, pauses, saves, samples, lists, a second run (which is refused)."""

    name = "clients at once"

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        doings = [rng.choice(sorted(self.doings)) for _ in range(rng.randint(2, 6))]
        return {**super().draw(rng, counts), "doings": doings}

    def meanwhile(self, trial: Any) -> None:
        failed = list[str]()

        def client(doing: str) -> None:
            try:
                self.doings[doing](trial)
            except Exception as error:
                failed.append(f"{doing}: {error}")

        threads = [threading.Thread(target=client, args=(doing,)) for doing in trial.settings["doings"]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        trial.webui.call("/pivotal/v1/runs/current/resume", {})
        trial.demand("answers", not failed, f"a client was turned away: {failed[:3]}")

    @staticmethod
    def _start_another(trial: Any) -> None:
        from tests.live.conftest import RequestFailedError

        with contextlib.suppress(RequestFailedError):
            trial.post_run()
            trial.demand("kept", trial.webui.call("/pivotal/v1/runs/current")["id"] == trial.run_id, "two runs at once")

    @staticmethod
    def _pause(trial: Any) -> None:
        trial.webui.call("/pivotal/v1/runs/current/pause", {})
        time.sleep(0.3)
        trial.webui.call("/pivotal/v1/runs/current/resume", {})

    doings: Mapping[str, Callable[[Any], Any]] = {
        "picture": lambda trial: trial.webui.txt2img("1girl, aoi", steps=2),
        "picture with the bundle": lambda trial: trial.webui.txt2img(f"aoi <lora:{NAME}:1>", steps=2),
        "look": lambda trial: [trial.webui.call("/pivotal/v1/runs/current") for _ in range(20)],
        "bundles": lambda trial: trial.webui.call("/pivotal/v1/bundles"),
        "save": lambda trial: trial.webui.call("/pivotal/v1/runs/current/save", {}),
        "sample": lambda trial: trial.webui.call("/pivotal/v1/runs/current/sample", {}),
        "pause": lambda trial: ClientsAtOnce._pause(trial),
        "another run": lambda trial: ClientsAtOnce._start_another(trial),
        "scan": lambda trial: trial.webui.call("/pivotal/v1/scan", {"folder": str(trial.folders.pictures)}),
        "refresh": lambda trial: trial.webui.reload_files(),
    }


class StoppedAndContinued(AtAStep):
    """Stop is pressed; the run is continued afterwards, by its id."""

    name = "stopped and continued"

    def meanwhile(self, trial: Any) -> None:
        trial.webui.call("/pivotal/v1/runs/current/stop", {})


class BrowserClosed(AtAStep):
    """A browser shows the run; it is killed, or its page closed."""

    name = "browser closed"
    releases_itself = True

    def available(self) -> bool:
        try:
            import playwright.sync_api  # noqa: F401
        except ImportError:
            return False
        return CHROMIUM.exists()

    def draw(self, rng: random.Random, counts: Mapping[str, int]) -> Settings:
        how = rng.choice(["page closed", "tab left", "killed"])
        return {**super().draw(rng, counts), "how": how, "wait_s": rng.choice([0.0, 0.3, 1.0])}

    def meanwhile(self, trial: Any) -> None:
        from playwright.sync_api import sync_playwright

        flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
            page = browser.new_page()
            page.goto(trial.webui.url, wait_until="domcontentloaded", timeout=120_000)
            page.wait_for_selector("#txt2img_prompt textarea", timeout=120_000)
            page.locator("#tabs > div > button", has_text="Pivotal tuning").click()
            page.locator("#pivotal_tabs > div > button", has_text="Train").first.click()
            page.wait_for_timeout(1000 * trial.settings["wait_s"])
            trial.release()
            how = trial.settings["how"]
            if how == "page closed":
                page.close()
            elif how == "tab left":
                page.goto("about:blank")
            browser.close()


WEBUI_KINDS: tuple[Kind, ...] = (
    CheckpointSwitched(),
    ReloadUI(),
    Interrupted(),
    BrowserClosed(),
    ClientsAtOnce(),
    PicturesMeanwhile(),
    StoppedAndContinued(),
)
ALL_KINDS = (*KINDS, *WEBUI_KINDS)
"""Every kind of fault that a run in a web UI can meet."""


def kind_called(name: str) -> Kind:
    """Of `ALL_KINDS`, or one that does nothing.

    Raises:
        KeyError: there is no such kind.
    """
    return {"none": Nothing(), **{kind.name: kind for kind in ALL_KINDS}}[name]


class Nothing(Kind):
    """No fault: moments are counted."""

    name = "none"

    def plant(self, act: Act) -> None:
        pass
