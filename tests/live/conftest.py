"""A real web UI (AUTOMATIC1111 v1.10.1), started once a session on folders of its own; skipped where there is none.

`$PIVOTAL_WEBUI` or `~/stable-diffusion-webui` is a folder with the web UI and its environment (`venv` or `.venv`).
Only `-m webui`, or a path below tests/live, starts it. Models, settings and outputs lie in a temporary `--data-dir`:
the user's own are neither read nor written, and the user's extensions are not loaded. It runs on the CPU and offline.

Tests that take `family` run for SD1, SD2 and SDXL, or those that `$PIVOTAL_LIVE_FAMILIES` names ("sd1,sdxl"). SD1's
checkpoint is examples/avatars/weights/avatars.safetensors, or the one that `$PIVOTAL_LIVE_CHECKPOINT` names, with
its .yaml beside it. `version` of the yaml's text encoder is a folder with config.json: that is how a stock web UI gets
a text model of another width than CLIP-L's. A relative one counts from the web UI's folder, so the copy of the yaml
names it absolutely. The others' are random and as small as can be (`tiny_families.py`).
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from tests.live.material import Material
from tests.live.situations import Situation

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "examples" / "avatars" / "weights"
FAMILIES = ("sd1", "sd2", "sdxl")
FOREIGN_NAMES = ("sd3", "xlmr")
"""Of `TinyCheckpoints`: SD3 and AltDiffusion."""
TEXT_CONFIG = "pivotal.text_model"
"""The checkpoint's metadata with the text model's config.json: heads and the like are not to be seen in the weights."""

START_TIMEOUT_S = 1200
REQUEST_TIMEOUT_S = 600
ARGUMENTS = (
    "--skip-prepare-environment --skip-torch-cuda-test --skip-version-check --use-cpu all "
    "--api --server-name 127.0.0.1 --do-not-download-clip --no-download-sd-model "
    "--disable-console-progressbars --loglevel DEBUG"
).split()
NEWER_ARGUMENTS = ("--no-prompt-history",)
"""Those that not every version from 1.7 on knows."""
FULL_PRECISION = ("--no-half", "--precision", "full")
ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "GRADIO_ANALYTICS_ENABLED": "False",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONUNBUFFERED": "1",
    "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",  # v1.10.1 checks pickles itself, before torch does
}
UNWANTED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "COMMANDLINE_ARGS", "SD_WEBUI_LOG_LEVEL")
"""Variables of the caller's that would put its own packages or options into the web UI."""


@dataclass(frozen=True)
class Installation:
    """Where the web UI lies and the Python that runs it."""

    folder: Path
    python: Path


@dataclass(frozen=True, eq=False)
class Generated:
    """A picture that the web UI made, and what it wrote about it."""

    image: Image.Image
    infotext: str

    def encoded(self) -> str:
        """The picture as the API takes it."""
        buffer = io.BytesIO()
        self.image.save(buffer, "PNG")
        return base64.b64encode(buffer.getvalue()).decode()


class RequestFailedError(Exception):
    """The web UI answered with an error; its own text says which."""


class WebUI:
    """A running web UI, spoken to over its API."""

    def __init__(self, process: subprocess.Popen[bytes], *, url: str, data: Path, log: Path) -> None:
        self.process = process
        self.url = url
        self.data = data
        self.log = log

    @property
    def lora_folder(self) -> Path:
        return self.data / "models" / "Lora"

    @property
    def embeddings_folder(self) -> Path:
        return self.data / "embeddings"

    def log_text(self) -> str:
        """All that the web UI has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def call(self, path: str, body: Any = None, *, timeout_s: float = REQUEST_TIMEOUT_S) -> Any:
        """GET, or POST where there is a body."""
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RequestFailedError(f"{path}: {error.code} {error.read().decode(errors='replace')[:2000]}") from error

    def ask_txt2img(self, prompt: str, **settings: Any) -> Any:
        """The API's whole answer: 64 px, 12 Euler steps; any of its settings can be given."""
        body = {
            "prompt": prompt,
            "width": 64,
            "height": 64,
            "steps": 12,
            "sampler_name": "Euler",
            "cfg_scale": 4,
            "seed": 0,
            **settings,
        }
        return self.call("/sdapi/v1/txt2img", body)

    def txt2img(self, prompt: str, **settings: Any) -> Generated:
        """One picture and what was written about it, asked for as by `ask_txt2img`."""
        answer = self.ask_txt2img(prompt, **settings)
        image = Image.open(io.BytesIO(base64.b64decode(answer["images"][0]))).convert("RGB")
        return Generated(image, json.loads(answer["info"])["infotexts"][0])

    @staticmethod
    def pictures(answer: Any) -> list[bytes]:
        """The pixels of every picture in an answer of the API."""
        return [Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB").tobytes() for image in answer["images"]]

    def use(self, name: str) -> None:
        """Load the checkpoint of this name."""
        self.call("/sdapi/v1/options", {"sd_model_checkpoint": f"{name}.safetensors"})

    def second_checkpoint(self, name: str) -> str:
        """The name of a copy of this checkpoint with a configuration file of its own: it is loaded from scratch."""
        models = self.data / "models" / "Stable-diffusion"
        first = models / f"{name}.safetensors"
        copy = models / f"{name}-second.safetensors"
        if not copy.exists():
            shutil.copyfile(first, copy)
            shutil.copyfile(first.with_suffix(".yaml"), copy.with_suffix(".yaml"))
            self.call("/sdapi/v1/refresh-checkpoints", {})
        return copy.name

    def reload_files(self) -> None:
        """Have it look for LoRA and embedding files again."""
        self.call("/sdapi/v1/refresh-loras", {})
        with contextlib.suppress(RequestFailedError):  # 1.7 has no such route
            self.call("/sdapi/v1/refresh-embeddings", {})

    def wait_until_ready(self) -> None:
        """Until the API answers and the checkpoint is loaded; fails, showing the log's end, if that does not come."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            log = self.log_text()
            if self.process.poll() is not None:
                pytest.fail(f"the web UI ended with code {self.process.returncode}:\n{_tail(log)}")
            if "Stable diffusion model failed to load" in log:
                pytest.fail(f"the web UI could not load the checkpoint:\n{_tail(log)}")
            # not before: with the page, a request while routes are being added ends the start ("Cannot add middleware")
            if "Model loaded in" in log and "Startup time:" in log:
                with contextlib.suppress(OSError, RequestFailedError):
                    self.call("/sdapi/v1/loras", timeout_s=10)
                    return
            time.sleep(0.5)
        pytest.fail(f"the web UI was not ready after {START_TIMEOUT_S} s:\n{_tail(self.log_text())}")


def find_installation() -> Installation | str:
    """The web UI on this machine, or the reason why none can be used."""
    named = os.environ.get("PIVOTAL_WEBUI")
    folder = Path(named).expanduser() if named else Path.home() / "stable-diffusion-webui"
    where = "$PIVOTAL_WEBUI" if named else "~/stable-diffusion-webui ($PIVOTAL_WEBUI is not set)"
    if not (folder / "launch.py").is_file():
        return f"no web UI: {where} has no launch.py"
    for environment in ("venv", ".venv"):
        for inside in ("bin/python", "Scripts/python.exe"):
            python = folder / environment / inside
            if python.exists():
                return Installation(folder.resolve(), python.absolute())  # a resolved link would leave its venv
    return f"the web UI in {where} has no Python environment: start it once"


def find_checkpoint() -> Path | str:
    """The checkpoint to load, or the reason why there is none."""
    named = os.environ.get("PIVOTAL_LIVE_CHECKPOINT")
    checkpoint = Path(named).expanduser() if named else WEIGHTS / "avatars.safetensors"
    missing = [path.name for path in (checkpoint, checkpoint.with_suffix(".yaml")) if not path.is_file()]
    where = "$PIVOTAL_LIVE_CHECKPOINT" if named else "examples/avatars/weights"
    return f"no checkpoint: {where} lacks {' and '.join(missing)}" if missing else checkpoint.resolve()


@pytest.fixture(scope="session")
def installation(request: pytest.FixtureRequest) -> Installation:
    found = find_installation()
    if isinstance(found, str):
        pytest.skip(found)
    asked = "webui" in request.config.option.markexpr or any(
        "live" in Path(argument.split("::")[0]).parts for argument in request.config.invocation_params.args
    )
    if not asked:
        pytest.skip("a web UI is here, but starting it takes a while: pytest -m webui tests/live")
    return found


@pytest.fixture(scope="session")
def checkpoint(installation: Installation) -> Path:
    found = find_checkpoint()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def stock_webui(
    installation: Installation,
    checkpoint: Path,
    tiny_checkpoints: TinyCheckpoints,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[WebUI]:
    """The web UI as it comes: its built-in extensions, not this one."""
    folder = tmp_path_factory.mktemp("stock_webui")
    with running(installation, checkpoint, folder, prepare=tiny_checkpoints.lay_out_families) as webui:
        no_live_previews(webui)
        yield webui


@pytest.fixture(scope="session")
def pivotal_webui(
    installation: Installation,
    checkpoint: Path,
    tiny_checkpoints: TinyCheckpoints,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[WebUI]:
    """The web UI with this project linked into its extensions folder."""
    folder = tmp_path_factory.mktemp("pivotal_webui")
    with running(installation, checkpoint, folder, linked=True, prepare=tiny_checkpoints.lay_out_families) as webui:
        no_live_previews(webui)
        yield webui


def no_live_previews(webui: WebUI) -> None:
    """SDXL's would be downloaded."""
    webui.call("/sdapi/v1/options", {"live_previews_enable": False})


@dataclass(frozen=True)
class Family:
    """A kind of checkpoint, and the one that stands for it."""

    name: str
    checkpoint: Path


def chosen_families() -> tuple[str, ...]:
    """Of `FAMILIES` those that the environment asks for; all of them if it says nothing."""
    asked = re.findall(r"\w+", os.environ.get("PIVOTAL_LIVE_FAMILIES", " ".join(FAMILIES)))
    return tuple(name for name in FAMILIES if name in asked)


@pytest.fixture(scope="module", params=chosen_families())
def family(request: pytest.FixtureRequest, checkpoint: Path, tiny_checkpoints: TinyCheckpoints) -> Family:
    name = str(request.param)
    return Family(name, checkpoint if name == "sd1" else tiny_checkpoints.path(name))


@pytest.fixture(scope="module")
def material(family: Family) -> Material:
    """Networks and words for the family's checkpoint."""
    return Material(load_file(family.checkpoint))


@pytest.fixture
def pivotal(pivotal_webui: WebUI, family: Family, material: Material) -> Situation:
    """The web UI with this extension and the family's checkpoint."""
    pivotal_webui.use(family.checkpoint.stem)
    return Situation(pivotal_webui, material, family.checkpoint.stem)


@pytest.fixture
def stock(stock_webui: WebUI, family: Family, material: Material) -> Situation:
    """The same as the web UI comes."""
    stock_webui.use(family.checkpoint.stem)
    return Situation(stock_webui, material, family.checkpoint.stem)


class TinyCheckpoints:
    """Random checkpoints of other families (`tiny_families.py`) and of kinds that are refused (`tiny_foreign.py`).

    Each is made once a session, when first asked for.
    """

    SCRIPT = Path(__file__).with_name("tiny_families.py")
    FOREIGN = Path(__file__).with_name("tiny_foreign.py")

    def __init__(self, installation: Installation, folder: Path) -> None:
        from lib_pivotal.standalone.tokenizer import write_tokenizer

        self._installation = installation
        self._models = folder / "models"
        self._clip = self._models / "clip"
        self._clip.mkdir(parents=True)
        write_tokenizer(self._clip)
        self.hub = folder / "hub"
        """A cache of the hub's, for `$HUGGINGFACE_HUB_CACHE`: tokenizers of `FOREIGN_NAMES`."""

    def path(self, name: str) -> Path:
        """The checkpoint's file, with its .yaml beside it; `name` as in `tiny_families.configurations`."""
        self._make(name)
        return self._models / f"{name}.safetensors"

    def lay_out(self, data: Path, *names: str) -> None:
        """For `prepare`: checkpoints, and an extension that makes their architectures known to the web UI."""
        self._make(*names)
        scripts = data / "extensions" / "zz-tiny" / "scripts"
        scripts.mkdir(parents=True)
        shutil.copyfile(self.SCRIPT, scripts / self.SCRIPT.name)
        if set(names) & set(FOREIGN_NAMES):
            shutil.copyfile(self.FOREIGN, scripts / self.FOREIGN.name)
        for name in names:
            for file in self._models.glob(f"{name}.*"):
                target = data / "models" / "Stable-diffusion" / file.name
                if not target.exists():
                    target.hardlink_to(file)

    def lay_out_families(self, data: Path) -> None:
        """For `prepare`: the checkpoints that `family` asks for, beside the one of SD1."""
        self.lay_out(data, *(name for name in chosen_families() if name != "sd1"))

    def _make(self, *names: str) -> None:
        missing = [name for name in names if not (self._models / f"{name}.safetensors").exists()]
        if not missing:
            return
        where = (self._installation.folder, self._models, self._clip)
        foreign = [name for name in missing if name in FOREIGN_NAMES]
        if known := [name for name in missing if name not in foreign]:
            self._run(self.SCRIPT, *where, *known)
        if foreign:
            self._run(self.FOREIGN, *where, self.hub, *foreign)

    def _run(self, *arguments: str | Path) -> None:
        command = [str(self._installation.python), *map(str, arguments)]
        environment = {key: value for key, value in os.environ.items() if key not in UNWANTED} | ENVIRONMENT
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            pytest.fail(f"no tiny checkpoints:\n{_tail(done.stderr)}")


@pytest.fixture(scope="session")
def tiny_checkpoints(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> TinyCheckpoints:
    return TinyCheckpoints(installation, tmp_path_factory.mktemp("tiny"))


TRAINED = ("sd1", "sd2", "sd2v", "sdxl", "sdxlv", "ssd", "sd1inpaint", "sd2inpaint", "sdxlinpaint")
"""Tiny checkpoints of every kind that can be trained."""


@pytest.fixture(scope="module")
def webui(
    installation: Installation, tiny_checkpoints: TinyCheckpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebUI]:
    """With a checkpoint of every kind in `TRAINED`, and the probe; many test modules have one of their own instead."""

    def prepare(data: Path) -> None:
        shutil.copytree(ROOT / "tests" / "live" / "probe", data / "extensions" / "probe")
        tiny_checkpoints.lay_out(data, *TRAINED)

    data = tmp_path_factory.mktemp("trained")
    with running(installation, tiny_checkpoints.path("sd1"), data, linked=True, prepare=prepare) as found:
        no_live_previews(found)
        yield found


CHROMIUM = Path(os.environ.get("PIVOTAL_CHROMIUM", "/usr/bin/chromium"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Playwright's, on Debian's chromium or the one that `$PIVOTAL_CHROMIUM` names."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright to drive the page")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    flags = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield opened
        opened.close()


@contextlib.contextmanager
def running(
    installation: Installation,
    checkpoint: Path,
    data: Path,
    *,
    linked: bool = False,
    page: bool = False,
    prepare: Callable[[Path], None] = lambda data: None,
    arguments: Sequence[str] = (),
    half: bool = False,
    variables: Mapping[str, str] | None = None,
) -> Iterator[WebUI]:
    """Start the web UI on `data`, wait until it is ready, end it; with the page (gradio) or only the API.

    `prepare` may put more into `data` before the start; `arguments` are added to the command line;
    `half` leaves the weights in half precision, which not every version of torch can do on a CPU; `variables` are
    added to the environment.
    """
    lay_out_data(data, checkpoint)
    prepare(data)
    if linked:
        (data / "extensions" / "sd-webui-pivotal").symlink_to(ROOT, target_is_directory=True)
    with started(installation, data, page=page, arguments=arguments, half=half, variables=variables) as webui:
        yield webui


@contextlib.contextmanager
def started(
    installation: Installation,
    data: Path,
    *,
    page: bool = False,
    arguments: Sequence[str] = (),
    half: bool = False,
    variables: Mapping[str, str] | None = None,
) -> Iterator[WebUI]:
    """`running` on folders that are laid out already: also again, after one was killed."""
    port = free_port()
    log = data / "webui.log"
    command = [
        str(installation.python),
        "launch.py",
        *ARGUMENTS,
        *(() if half else FULL_PRECISION),
        *known_arguments(installation),
        "--port",
        str(port),
        "--data-dir",
        str(data),
        *arguments,
    ]
    environment = {key: value for key, value in os.environ.items() if key not in UNWANTED} | ENVIRONMENT
    environment.setdefault("OMP_NUM_THREADS", "1")
    environment |= variables or {}
    # its own folder as working folder: elsewhere gradio would refuse to serve its scripts and styles
    with log.open("wb") as output:
        process = subprocess.Popen(
            command if page else [*command, "--nowebui"],
            cwd=installation.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    webui = WebUI(process, url=f"http://127.0.0.1:{port}", data=data, log=log)
    try:
        webui.wait_until_ready()
        yield webui
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


def known_arguments(installation: Installation) -> list[str]:
    """Of `NEWER_ARGUMENTS` those that this version has."""
    known = (installation.folder / "modules" / "cmd_args.py").read_text(encoding="utf-8")
    return [argument for argument in NEWER_ARGUMENTS if f'"{argument}"' in known]


def add_probe(data: Path) -> None:
    """For `prepare`: an extension with routes that look into the running web UI (`names_probe.py`)."""
    scripts = data / "extensions" / "zz-probe" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copyfile(Path(__file__).with_name("names_probe.py"), scripts / "names_probe.py")


def lay_out_data(data: Path, checkpoint: Path) -> None:
    """The folders of a `--data-dir`, with the checkpoint, its yaml and the text folder that the yaml names.

    Pictures of tests lie beside it: the API, which asks for no login here, may use the folder of all of them.
    """
    models = data / "models" / "Stable-diffusion"
    for folder in (models, data / "models" / "Lora", data / "embeddings", data / "extensions"):
        folder.mkdir(parents=True)
    shutil.copyfile(checkpoint, models / checkpoint.name)
    options = {"pivotal_api_folders": str(data.parents[1])}
    (data / "config.json").write_text(json.dumps(options), encoding="utf-8")
    yaml = checkpoint.with_suffix(".yaml").read_text(encoding="utf-8")
    version = re.search(r"^( *version: *)(.+?) *$", yaml, flags=re.MULTILINE)
    if version is not None:
        text = models / Path(version[2].strip("'\"")).name
        write_text_folder(text, checkpoint)
        yaml = yaml[: version.start()] + version[1] + json.dumps(text.as_posix()) + yaml[version.end() :]
    (models / checkpoint.name).with_suffix(".yaml").write_text(yaml, encoding="utf-8")


def write_text_folder(folder: Path, checkpoint: Path) -> None:
    """The text folder that lies beside the checkpoint, with what it lacks: config.json and CLIP's tokenizer."""
    from lib_pivotal.standalone.tokenizer import write_tokenizer

    if (checkpoint.parent / folder.name).is_dir():
        shutil.copytree(checkpoint.parent / folder.name, folder)
    folder.mkdir(exist_ok=True)
    if not (folder / "vocab.json").is_file():
        write_tokenizer(folder)
    if not (folder / "config.json").is_file():
        (folder / "config.json").write_text(text_config(checkpoint), encoding="utf-8")


def text_config(checkpoint: Path) -> str:
    """transformers' configuration of the checkpoint's CLIP text model, from its metadata."""
    with safe_open(str(checkpoint), framework="pt") as file:
        metadata = file.metadata() or {}
    if TEXT_CONFIG not in metadata:
        pytest.fail(f"{checkpoint.name}: neither a text folder beside it nor {TEXT_CONFIG} in its metadata")
    return metadata[TEXT_CONFIG]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tail(text: str, lines: int = 40) -> str:
    return "\n".join(text.splitlines()[-lines:])
