"""Routes under /pivotal/v1 for runs and datasets, with the web UI's authentication; the sentences are the page's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import compare_digest
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from modules import shared
from pydantic import BaseModel, Field

from lib_pivotal.commands import captions, datasets, grid, report, runs, settings, steps
from lib_pivotal.commands.terms import both
from lib_pivotal.config import run_from_dict
from lib_pivotal.confinement import Confinement
from lib_pivotal.errors import ConfigError, FolderError, PivotalError
from lib_pivotal.files import sentence_of
from lib_pivotal.runs.host_defaults import host_defaults_of
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.runs.presets import run_settings
from lib_pivotal.runs.view import RunView
from lib_pivotal.webui import bundle_routes, bundle_work, compat
from lib_pivotal.webui.api_folders import of_the_api
from lib_pivotal.webui.jobs import run_manager
from lib_pivotal.webui.queue_routes import add_queue_routes, taken_overwrite

PREFIX = "/pivotal/v1"


class FaultAnswer(BaseModel):
    """One fault of the settings."""

    field: str
    value: Any
    problem: str
    remedy: str = ""


class StartAnswer(BaseModel):
    """Of a run that was started."""

    id: str
    folder: str


class LiveRequest(BaseModel):
    """Whether pictures made during a run may use the network as it is."""

    on: bool


class LiveAnswer(BaseModel):
    """`name` is for `<lora:NAME:1>`."""

    on: bool
    name: str


class ContinueRequest(BaseModel):
    """`overwrite`: files of the run's name that are another run's may be replaced."""

    overwrite: bool = False
    max_steps: int = Field(
        default=0, ge=0, description="steps in all: a finished run is made longer; 0: as many as it had"
    )


class ScanBody(BaseModel):
    """A dataset to look at."""

    folder: str = Field(..., description="folder of pictures with captions, on the machine that runs the web UI")
    settings: dict[str, Any] = Field({}, description="settings of a run's `data`, such as `layout` and `duplicates`")


class PlanRequest(BaseModel):
    """A dataset and a run; without `run` one is fitted to the folder. `fix` applies fixes before planning."""

    folder: str
    run: dict[str, Any] | None = None
    fix: bool = False
    mend: bool = Field(False, description="`fix`, as it was called in version 1")


class WritingRequest(PlanRequest):
    """Captions to write; `digest` is a preview's: where it is another one now, nothing is written."""

    digest: str = ""


class FixRequest(BaseModel):
    """A run, and a fix of its plan."""

    run: dict[str, Any]
    fix: dict[str, Any] | None = None
    remedy: dict[str, Any] | None = Field(None, description="`fix`, as it was called in version 1")


class ProblemAnswer(BaseModel):
    """Something to look at in a dataset."""

    level: str
    code: str
    message: str
    keys: list[str]


class ScanAnswer(BaseModel):
    """What is in a folder: the same as `python -m lib_pivotal scan --json`."""

    folder: str
    layout: str
    read_as: str
    sources: list[dict[str, Any]]
    settings: dict[str, Any]
    pictures: int
    samples_per_epoch: float
    draws_per_epoch: float
    masks: int
    transparent: int
    concepts: dict[str, dict[str, Any]]
    sizes: dict[str, int]
    tags: dict[str, float]
    problems: list[ProblemAnswer]


class CaptionsRequest(BaseModel):
    """Whose captions to write, and what writes them."""

    folder: str
    tagger: str = "deepbooru"
    settings: dict[str, Any] = Field({}, description="settings of a run's `data`, such as `layout`")


class ImportBody(BaseModel):
    """Settings of another trainer: a file on the machine that runs the web UI, or its name and text."""

    file: str = ""
    name: str = Field("", description="with `text`: a name whose ending tells the format, e.g. config.toml")
    text: str = ""


class GridRequest(BaseModel):
    """A parts grid: a LoRA by its name; without `embeddings`, of all of its own."""

    name: str
    embeddings: list[str] = []
    words: list[str] = Field([], description="`embeddings`, as it was called in the first version")
    prompts: list[str] = []
    weights: list[float] = []
    negative: str = ""
    size: int = 512
    steps: int = 20
    cfg: float = 7.0
    seed: int = 0


class KeepRequest(BaseModel):
    """A step whose bundle is to be kept."""

    step: int


class FileAnswer(BaseModel):
    """A file that was written."""

    file: str


class TaggerAnswer(BaseModel):
    """Something that writes captions; `missing` says why it cannot be used, empty if it can."""

    name: str
    title: str
    missing: str


class PreflightAnswer(BaseModel):
    """What a run will cost."""

    step_s: float
    total_s: float
    memory_bytes: int | None
    memory_total_bytes: int | None
    memory_free_bytes: int | None
    memory_parts: dict[str, int] | None
    memory_moment: str
    memory_fits: bool | None
    samples: dict[str, float] | None
    draws: dict[str, float] | None
    faults: list[FaultAnswer]
    warnings: list[str]
    remarks: list[str]


def register(
    app: FastAPI,
    manager: Callable[[], RunManager] = run_manager,
    folders: Callable[[], Confinement] = of_the_api,
) -> None:
    """Add the routes; for `on_app_started`, and only where the web UI's own API is on."""
    routes = _Routes(manager, folders)
    add = _adder(app)
    add("POST", "/runs", routes.start, StartAnswer)
    add("POST", "/runs/preflight", routes.preflight, PreflightAnswer)
    add("POST", "/runs/class_pictures", routes.class_pictures, StartAnswer)
    add("GET", "/runs/resumable", routes.resumable, list[str])
    add("GET", "/runs/finished", routes.finished, list[str])
    add("GET", "/runs/{run_id}", routes.show, dict[str, Any])
    for verb in runs.STEERING:
        add("POST", f"/runs/{{run_id}}/{verb}", routes.command(verb), dict[str, Any])
    add("POST", "/runs/{run_id}/continue", routes.go_on, StartAnswer)
    add("POST", "/runs/{run_id}/keep", routes.keep, FileAnswer)
    add("GET", "/runs/{run_id}/steps", routes.steps, dict[str, Any])
    add("POST", "/runs/{run_id}/measure", routes.measure, dict[str, Any])
    add("POST", "/runs/{run_id}/use", routes.use, FileAnswer)
    add("POST", "/runs/{run_id}/checkpoint", routes.load_checkpoint, dict[str, Any])
    add_queue_routes(add, manager, folders, told=_told)
    add("POST", "/report", routes.report, FileAnswer)
    add("POST", "/live", routes.live, LiveAnswer)
    add("POST", "/scan", routes.scan, ScanAnswer)
    add("POST", "/grid", routes.grid, FileAnswer)
    add("POST", "/import", routes.import_settings, dict[str, Any])
    add("POST", "/plan", routes.plan, dict[str, Any])
    add("POST", "/plan/fix", routes.fix, dict[str, Any])
    add("POST", "/plan/remedy", routes.fix, dict[str, Any])  # as it was called in version 1
    add("POST", "/captions/preview", routes.captions_preview, dict[str, Any])
    add("POST", "/captions/write", routes.captions_write, dict[str, Any])
    add("POST", "/captions/take_back", routes.captions_take_back, dict[str, Any])
    add("GET", "/captions", routes.taggers, list[TaggerAnswer])
    add("POST", "/captions", routes.write_captions, StartAnswer)
    add("GET", "/bundles", bundle_routes.list_bundles, None)
    add("POST", "/bundles/{verb}", bundle_routes.work, dict[str, Any])


class _Routes:
    """The verbs; each turns our errors into 4xx with their own sentence, and gives `folders` to what follows a path."""

    def __init__(self, manager: Callable[[], RunManager], folders: Callable[[], Confinement]) -> None:
        self._manager = manager
        self._folders = folders

    def _run(self, plain: dict[str, Any], *, overwrite: bool = False) -> runs.StartRequest:
        return runs.StartRequest(run_from_dict(plain), overwrite=overwrite, folders=self._folders())

    def _scan(self, folder: str, settings: dict[str, Any]) -> datasets.ScanRequest:
        around = host_defaults_of(self._manager().backend)
        return datasets.ScanRequest(folder, settings, circumstances=around, folders=self._folders())

    def _folder(self, request: PlanRequest) -> datasets.FolderRequest:
        return datasets.FolderRequest(
            request.folder,
            None if request.run is None else run_settings(request.run),
            circumstances=host_defaults_of(self._manager().backend),
            folders=self._folders(),
        )

    def start(self, run: dict[str, Any]) -> StartAnswer:
        """A run.json; beside its settings, `"overwrite": true` lets it replace files of its name."""
        with _told():
            plain = dict(run)
            overwrite = taken_overwrite(plain)
            return _started(runs.start(self._manager(), self._run(plain, overwrite=overwrite)))

    def preflight(self, run: dict[str, Any]) -> PreflightAnswer:
        with _told():
            found = runs.preflight(self._manager(), self._run(run))
        faults = [_fault(fault) for fault in found.faults]
        plain = both({**found.__dict__, "faults": [], "remarks": list(found.remarks)})
        return PreflightAnswer(**plain | {"faults": faults})

    def class_pictures(self, run: dict[str, Any]) -> StartAnswer:
        with _told():
            return _started(runs.class_pictures(self._manager(), self._run(run)))

    def resumable(self) -> list[str]:
        return runs.interrupted(self._manager())

    def finished(self) -> list[str]:
        return runs.finished(self._manager())

    def show(self, run_id: str) -> dict[str, Any]:
        with _told(404):
            return _shown(self._manager().view(run_id))

    def command(self, verb: str) -> Callable[[str], dict[str, Any]]:
        def serve(run_id: str) -> dict[str, Any]:
            with _told(404):
                return _shown(runs.steer(self._manager(), run_id, verb=verb))

        serve.__name__ = f"pivotal_{verb}_run"
        return serve

    def go_on(self, run_id: str, request: ContinueRequest | None = None) -> StartAnswer:
        manager = self._manager()
        with _told(404):
            manager.resumable_folder(run_id)
        with _told():
            asked = request or ContinueRequest(max_steps=0)
            longer = runs.continue_run(manager, run_id, overwrite=asked.overwrite, max_steps=asked.max_steps)
            return _started(longer)

    def keep(self, run_id: str, request: KeepRequest) -> FileAnswer:
        manager = self._manager()
        with _told(404):
            manager.view(run_id)
        with _told():
            return FileAnswer(file=str(runs.keep(manager, run_id, step=request.step).file))

    def steps(self, run_id: str, by: str = "") -> dict[str, Any]:
        """`by`: names of picture scorers, separated by commas."""
        with _told(404):
            folder = steps.run_folder(self._manager(), run_id)
        with _told():
            return steps.rank_steps(folder, by=[name for name in by.split(",") if name]).as_dict()

    def measure(self, run_id: str) -> dict[str, Any]:
        with _told(404):
            steps.run_folder(self._manager(), run_id)
        with _told():
            return steps.measure_run(self._manager(), run_id).as_dict()

    def use(self, run_id: str, request: KeepRequest) -> FileAnswer:
        manager = self._manager()
        with _told(404):
            steps.run_folder(manager, run_id)
        with _told():
            return FileAnswer(file=str(steps.use_step(manager, run_id, step=request.step).file))

    def load_checkpoint(self, run_id: str) -> dict[str, Any]:
        with _told(404):
            return _shown(runs.load_checkpoint(self._manager(), run_id))

    def report(self) -> FileAnswer:
        with _told():
            return FileAnswer(file=str(report.report(self._manager(), program=compat.program())))

    def live(self, request: LiveRequest) -> LiveAnswer:
        return LiveAnswer(on=request.on, name=runs.use_live(self._manager(), on=request.on))

    def scan(self, request: ScanBody) -> ScanAnswer:
        with _told():
            return ScanAnswer(**both(datasets.scan(self._scan(request.folder, request.settings))))

    def grid(self, request: GridRequest) -> FileAnswer:
        with _told():
            wanted = grid.comparison(
                bundle_work.path_of(request.name),
                **{
                    **request.dict(exclude={"name", "words"}),
                    "embeddings": request.embeddings or request.words,
                    "weights": ", ".join(map(str, request.weights)),
                },
            )
            return FileAnswer(file=str(grid.compare(self._manager(), wanted)))

    def import_settings(self, request: ImportBody) -> dict[str, Any]:
        with _told():
            asked = settings.ImportRequest(request.file, name=request.name, text=request.text, folders=self._folders())
            return settings.import_settings(asked).to_plain()

    def plan(self, request: PlanRequest) -> dict[str, Any]:
        with _told():
            planned = datasets.plan(self._folder(request), fix=request.fix or request.mend)
            return both(planned.as_dict())

    def fix(self, request: FixRequest) -> dict[str, Any]:
        with _told():
            return datasets.fix(request.run, request.fix or request.remedy or {})

    def captions_preview(self, request: PlanRequest) -> dict[str, Any]:
        with _told():
            return both(captions.preview_as_dict(captions.preview(self._folder(request))))

    def captions_write(self, request: WritingRequest) -> dict[str, Any]:
        home = self._manager().backend.runs_folder()
        with _told():
            found = captions.preview(self._folder(request))
            return captions.write(found, request.folder, home=home, digest=request.digest or None).as_dict()

    def captions_take_back(self, request: ScanBody) -> dict[str, Any]:
        home = self._manager().backend.runs_folder()
        with _told():
            return captions.take_back(request.folder, home=home, folders=self._folders()).as_dict()

    def taggers(self) -> list[TaggerAnswer]:
        found = captions.taggers(self._manager())
        return [TaggerAnswer(name=one.name, title=one.title, missing=one.missing()) for one in found]

    def write_captions(self, request: CaptionsRequest) -> StartAnswer:
        with _told():
            data = self._scan(request.folder, request.settings).data()
            asked = captions.FillRequest(data, request.tagger, folders=self._folders())
            return _started(captions.fill(self._manager(), asked).view)


def _started(view: RunView) -> StartAnswer:
    return StartAnswer(id=view.run_id, folder=str(view.folder))


def _shown(view: RunView) -> dict[str, Any]:
    return both(view.snapshot())


@contextmanager
def _told(status: int = 400) -> Iterator[None]:
    """Our errors as HTTP errors: 422 with every fault by field for settings, else the sentence."""
    try:
        yield
    except ConfigError as error:
        faults = [_fault(fault).dict() for fault in error.faults]
        raise HTTPException(422, {"message": _sayable(str(error)), "faults": faults}) from error
    except FolderError as error:
        raise HTTPException(403, _sayable(str(error))) from error
    except PivotalError as error:
        raise HTTPException(status, _sayable(str(error))) from error
    except OSError as error:
        raise HTTPException(400, _sayable(sentence_of(error))) from error


def _sayable(text: str) -> str:
    """Text that JSON can carry: half a surrogate pair, which JSON can spell, has no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _fault(fault: Any) -> FaultAnswer:
    value = fault.value if isinstance(fault.value, int | float | bool) else _sayable(str(fault.value))
    return FaultAnswer(field=_sayable(fault.field), value=value, problem=fault.problem, remedy=fault.remedy)


def _adder(app: FastAPI) -> Callable[[str, str, Any, Any], None]:
    """`app.add_api_route` with the check that the web UI's own routes have (api.py:274-284)."""
    dependencies = [Depends(_authenticated)] if shared.cmd_opts.api_auth else []

    def add(method: str, path: str, endpoint: Any, answer: Any) -> None:
        app.add_api_route(PREFIX + path, endpoint, methods=[method], response_model=answer, dependencies=dependencies)

    return add


def _authenticated(credentials: HTTPBasicCredentials = Depends(HTTPBasic())) -> bool:  # noqa: B008
    known = dict(pair.split(":", 1) for pair in shared.cmd_opts.api_auth.split(","))
    password = known.get(credentials.username)
    if password is not None and compare_digest(credentials.password, password):
        return True
    raise HTTPException(401, "Incorrect username or password", headers={"WWW-Authenticate": "Basic"})
