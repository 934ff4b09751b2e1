"""The fake web UI of tests/webui does what the real one does: both are asked the same questions.

The questions are tests/webui/fake/pivotal_questions.py: the real web UI is asked through an extension that holds that
very file, the fake in this process. A fake that drifts fails here.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import Installation, TinyCheckpoints, WebUI, chosen_families, no_live_previews, running
from tests.webui.fake.install import installed
from tests.webui.fake.pivotal_questions import QUESTIONS, answer

pytestmark = pytest.mark.webui

KINDS = chosen_families()
QUESTIONS_FILE = Path(__file__).parents[1] / "webui" / "fake" / "pivotal_questions.py"

PROBE = """
import sys
from pathlib import Path

from fastapi import Body
from modules import call_queue, script_callbacks

sys.path.insert(0, str(Path(__file__).parents[1]))
import pivotal_questions


def ask(name: str = Body(...), folder: str = Body(...)):
    import traceback

    Path(folder).mkdir(parents=True, exist_ok=True)
    with call_queue.queue_lock if name != "lock" else open(__file__):
        try:
            return {"answer": pivotal_questions.answer(name, folder)}
        except Exception:
            return {"error": traceback.format_exc()}


script_callbacks.on_app_started(lambda _, app: app.add_api_route("/probe/ask", ask, methods=["POST"]))
"""


@pytest.fixture(scope="module")
def real(
    installation: Installation, tiny_checkpoints: TinyCheckpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WebUI]:
    """A web UI without our extension, with the questions."""

    def prepare(data: Path) -> None:
        scripts = data / "extensions" / "questions" / "scripts"
        scripts.mkdir(parents=True)
        shutil.copyfile(QUESTIONS_FILE, scripts.parent / QUESTIONS_FILE.name)
        (scripts / "ask.py").write_text(PROBE, encoding="utf-8")
        tiny_checkpoints.lay_out(data, *KINDS)

    data = tmp_path_factory.mktemp("questions")
    with running(installation, tiny_checkpoints.path(KINDS[0]), data, prepare=prepare) as found:
        no_live_previews(found)
        yield found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("question", sorted(QUESTIONS))
def test_the_same_answer(real: WebUI, tmp_path: Path, kind: str, question: str) -> None:
    real.use(kind)
    found = real.call("/probe/ask", {"name": question, "folder": str(tmp_path / "real")})
    assert "error" not in found, found["error"]
    with installed(tmp_path / "webui", kinds=(kind,)) as webui:
        assert webui.model is not None
        folder = tmp_path / "fake"
        folder.mkdir()
        ours: Any = answer(question, str(folder))
    assert ours == found["answer"]
