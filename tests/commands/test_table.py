"""Every command and where it is: on the page, in the API, on the command line, or absent with a reason.

Each entry is looked for where it would be used: an event of an element of the page, a route of the app that the web UI
started, a sub-command or option of the parser. What a front has and the table does not know fails as well.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lib_pivotal.runs.manager import RunManager
from lib_pivotal.standalone.cli import make_parser
from lib_pivotal.ui.tab import build_tab
from tests.ui.browser import element
from tests.ui.conftest import EmptyBackend
from tests.webui.conftest import fake_webui  # noqa: F401 (a fixture)
from tests.webui.fake.install import FakeWebUI

API = "/pivotal/v1"
RENAMED = {("POST", "/plan/remedy")}
"""Routes of version 1 that are called otherwise now, and served under both names."""
PACKAGE = Path(__file__).parents[2] / "lib_pivotal"


class Absent(NamedTuple):
    """Why a front has no such command."""

    reason: str


class Page(NamedTuple):
    """An element by its id, and its event."""

    elem_id: str
    event: str = "click"


class Route(NamedTuple):
    """A method and a path below `/pivotal/v1`."""

    method: str
    path: str


class Line(NamedTuple):
    """Sub-commands, and options behind them."""

    embeddings: tuple[str, ...]


class Fronts(NamedTuple):
    """Where a command is."""

    page: Page | Absent
    api: Route | Absent
    cli: Line | Absent


def line(text: str) -> Line:
    return Line(tuple(text.split()))


ONE_KEY = Absent("a terminal has one key, Ctrl-C: it stops, saves, and train --resume continues")
IN_PROCESS = Absent("the process that has the page and the API serves its queue by itself")
NO_OTHERS = Absent("the command line has the model for itself: no one waits for it, no other checkpoint is loaded")
TEXT_FILE = Absent("a caption is a text file beside its picture: programs and people have editors for those")
INTERROGATORS = Absent("the web UI's interrogators write them, which only run inside it")

COMMANDS: dict[str, Fronts] = {
    "scan": Fronts(Page("pivotal_scan"), Route("POST", "/scan"), line("scan")),
    "plan": Fronts(Page("pivotal_check"), Route("POST", "/plan"), line("plan")),
    "plan --fix": Fronts(Page("pivotal_change_now"), Route("POST", "/plan"), line("plan --fix")),
    "fix one": Fronts(
        Page("pivotal_change_now"),
        Route("POST", "/plan/fix"),
        Absent("RUN.json is a text: change it, or plan --fix"),
    ),
    "captions show": Fronts(Page("pivotal_writing_look"), Route("POST", "/captions/preview"), line("captions")),
    "captions write": Fronts(Page("pivotal_writing_write"), Route("POST", "/captions/write"), line("captions --write")),
    "captions take back": Fronts(
        Page("pivotal_writing_back"), Route("POST", "/captions/take_back"), line("captions --take-back")
    ),
    "captions replace": Fronts(Page("pivotal_caption_save"), TEXT_FILE, TEXT_FILE),
    "captions tag": Fronts(Page("pivotal_write_captions"), Route("POST", "/captions"), INTERROGATORS),
    "taggers": Fronts(Absent("they are the choices of the list"), Route("GET", "/captions"), INTERROGATORS),
    "import": Fronts(Page("pivotal_upload", "upload"), Route("POST", "/import"), line("import")),
    "preflight": Fronts(Page("pivotal_preflight"), Route("POST", "/runs/preflight"), line("preflight")),
    "class pictures": Fronts(
        Page("pivotal_class_pictures"), Route("POST", "/runs/class_pictures"), line("class-pictures")
    ),
    "start": Fronts(Page("pivotal_train"), Route("POST", "/runs"), line("train")),
    "continue": Fronts(Page("pivotal_resume_run"), Route("POST", "/runs/{run_id}/continue"), line("train --resume")),
    "interrupted runs": Fronts(
        Page("pivotal_lists"),
        Route("GET", "/runs/resumable"),
        Absent("there, a run is named by its RUN.json and folder"),
    ),
    "show a run": Fronts(
        Page("pivotal_refresh"), Route("GET", "/runs/{run_id}"), Absent("train shows it while it goes on, and logs it")
    ),
    "finished runs": Fronts(
        Page("pivotal_lists"),
        Route("GET", "/runs/finished"),
        Absent("there, a run is named by its RUN.json and folder"),
    ),
    "make longer": Fronts(Page("pivotal_go_further"), Route("POST", "/runs/{run_id}/continue"), line("train --resume")),
    "queue list": Fronts(Page("pivotal_refresh"), Route("GET", "/queue"), line("queue list")),
    "queue add": Fronts(Page("pivotal_queue_add"), Route("POST", "/queue"), line("queue add")),
    "sweep": Fronts(Page("pivotal_queue_add"), Route("POST", "/queue"), line("queue add --sweep")),
    "queue move": Fronts(Page("pivotal_queue_do"), Route("POST", "/queue/{entry_id}/move"), line("queue move")),
    "queue remove": Fronts(Page("pivotal_queue_do"), Route("POST", "/queue/{entry_id}/remove"), line("queue remove")),
    "queue skip": Fronts(Page("pivotal_queue_do"), Route("POST", "/queue/{entry_id}/skip"), line("queue skip")),
    "queue clear": Fronts(Page("pivotal_queue_clear"), Route("POST", "/queue/clear"), line("queue clear")),
    "queue pause": Fronts(Page("pivotal_queue_pause"), Route("POST", "/queue/pause"), line("queue pause")),
    "queue resume": Fronts(Page("pivotal_queue_pause"), Route("POST", "/queue/resume"), line("queue resume")),
    "queue run": Fronts(IN_PROCESS, IN_PROCESS, line("queue run")),
    "stop": Fronts(Page("pivotal_stop"), Route("POST", "/runs/{run_id}/stop"), ONE_KEY),
    "save": Fronts(Page("pivotal_save_now"), Route("POST", "/runs/{run_id}/save"), ONE_KEY),
    "sample": Fronts(Page("pivotal_sample_now"), Route("POST", "/runs/{run_id}/sample"), ONE_KEY),
    "pause": Fronts(Page("pivotal_pause"), Route("POST", "/runs/{run_id}/pause"), ONE_KEY),
    "resume": Fronts(Page("pivotal_pause"), Route("POST", "/runs/{run_id}/resume"), ONE_KEY),
    "keep a step": Fronts(
        Page("pivotal_keep"), Route("POST", "/runs/{run_id}/keep"), Absent("files of steps lie beside the result there")
    ),
    "load the checkpoint": Fronts(Page("pivotal_checkpoint"), Route("POST", "/runs/{run_id}/checkpoint"), NO_OTHERS),
    "rank steps": Fronts(Page("pivotal_steps_rank"), Route("GET", "/runs/{run_id}/steps"), line("steps")),
    "measure steps": Fronts(
        Page("pivotal_steps_measure"), Route("POST", "/runs/{run_id}/measure"), line("steps --measure")
    ),
    "use a step": Fronts(Page("pivotal_steps_do"), Route("POST", "/runs/{run_id}/use"), line("steps --use")),
    "report": Fronts(Page("pivotal_report"), Route("POST", "/report"), line("report")),
    "use it live": Fronts(Page("pivotal_live", "input"), Route("POST", "/live"), NO_OTHERS),
    "grid": Fronts(Page("pivotal_compare_draw"), Route("POST", "/grid"), line("grid")),
    "compare": Fronts(Page("pivotal_compare_draw"), Route("POST", "/grid"), line("grid --weights")),
    "bundle list": Fronts(Page("pivotal_bundle_reload"), Route("GET", "/bundles"), line("bundle list")),
    **{
        f"bundle {verb}": Fronts(
            Page(f"pivotal_bundle_{verb}", "upload" if verb == "add" else "click"),
            Route("POST", f"/bundles/{verb}"),
            line(f"bundle {verb}"),
        )
        for verb in (
            "show",
            "verify",
            "rename",
            "delete",
            "add",
            "adjust",
            "join",
            "strip",
            "split",
            "convert",
            "cut",
            "extract",
            "resize",
            "to_lora",
            "describe",
            "export",
        )  # fmt: skip
    },
}


def of(front: str) -> Any:
    """The table of one front, without what is absent there."""
    found = ((name, getattr(fronts, front)) for name, fronts in COMMANDS.items())
    return pytest.mark.parametrize(
        "entry", [pytest.param(e, id=name) for name, e in found if not isinstance(e, Absent)]
    )


def test_what_is_absent_has_a_reason() -> None:
    for name, fronts in COMMANDS.items():
        for entry in fronts:
            assert not isinstance(entry, Absent) or len(entry.reason) > 20, name


# ---- the page ----


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return build_tab(RunManager(EmptyBackend(tmp_path_factory.mktemp("page") / "process")))


@of("page")
def test_on_the_page(page: Any, entry: Page) -> None:
    target = element(page, entry.elem_id)._id
    bound = [one for one in page.dependencies if target in one["targets"] and one["trigger"] == entry.event]
    assert any(one["backend_fn"] for one in bound), f"{entry.elem_id} does nothing on {entry.event}"


# ---- the API ----


@pytest.fixture
def client(fake_webui: FakeWebUI) -> Iterator[Any]:  # noqa: F811
    fake_webui.load_extension()
    app = FastAPI()
    fake_webui.script_callbacks.app_started_callback(None, app)
    with TestClient(app) as made:
        yield made


def test_in_the_api(client: Any) -> None:
    routes = {
        (method, route.path.removeprefix(API))
        for route in client.app.routes
        if route.path.startswith(API)
        for method in route.methods
    }
    wanted = {tuple(fronts.api) for fronts in COMMANDS.values() if isinstance(fronts.api, Route)}
    work = {path.rpartition("/")[2] for method, path in wanted if method == "POST" and path.startswith("/bundles/")}
    for verb in work:
        answer = client.post(f"{API}/bundles/{verb}", json={})
        assert answer.status_code == 422 and "it takes" in answer.json()["detail"], verb
    told = client.post(f"{API}/bundles/nothing", json={}).json()["detail"]
    assert (
        set(told.partition("there are ")[2].split(", ")) == work
    ), "the API has work on bundles that the table has not"
    wanted = {one for one in wanted if not one[1].startswith("/bundles/")} | {("POST", "/bundles/{verb}")}
    assert wanted - routes == set(), "missing in the API"
    assert routes - wanted == RENAMED, "missing in the table"


# ---- the command line ----


def parsers(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every sub-command that has none below it."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for embedding, inner in action.choices.items():
            yield from parsers(inner, f"{name} {embedding}".strip())
    if not below:
        yield name, parser


def test_on_the_command_line() -> None:
    found = dict(parsers(make_parser()))
    wanted = [fronts.cli.embeddings for fronts in COMMANDS.values() if isinstance(fronts.cli, Line)]
    for embeddings in wanted:
        name = " ".join(embedding for embedding in embeddings if not embedding.startswith("-"))
        assert name in found, f"missing on the command line: {name}"
        options = {option for action in found[name]._actions for option in action.option_strings}
        assert {embedding for embedding in embeddings if embedding.startswith("-")} <= options, embeddings
    named = {" ".join(embedding for embedding in embeddings if not embedding.startswith("-")) for embeddings in wanted}
    assert set(found) == named, "the command line has a command that the table has not"


# ---- directions ----


def imports(path: Path) -> set[str]:
    """What a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_commands_know_no_front_and_nothing_below_knows_commands() -> None:
    fronts = ("ui", "webui", "standalone")
    for path in PACKAGE.rglob("*.py"):
        room, names = path.relative_to(PACKAGE).parts[0], imports(path)
        if room == "commands":
            assert not names & {"gradio", "argparse", "modules", "fastapi"}, path
            assert not [name for name in names if name.startswith(tuple(f"lib_pivotal.{one}" for one in fronts))], path
        elif room not in fronts:
            assert not [name for name in names if name.startswith("lib_pivotal.commands")], path
