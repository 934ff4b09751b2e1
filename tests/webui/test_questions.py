"""The questions that keep the fake like the real web UI can be asked, and leave nothing behind.

What the answers must be only the real one can tell: tests/live/test_fake_is_like_the_real_one.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.webui.fake.install import FakeWebUI
from tests.webui.fake.pivotal_questions import QUESTIONS, answer


def left(webui: FakeWebUI) -> list[Any]:
    return [
        dict(webui.opts.data),
        sorted(webui.opts.data_labels),
        list(webui.hijack.embedding_db.word_embeddings),
        sorted(webui.networks.available_networks),
        list(webui.networks.loaded_networks),
        {key: len(found) for key, found in webui.script_callbacks.callback_map.items()},
        sorted(webui.extra_networks.extra_network_registry),
        webui.shared.state.job,
        sorted(path.name for path in webui.lora_folder.iterdir()),
    ]


@pytest.mark.parametrize("question", sorted(QUESTIONS))
def test_asked_twice_it_answers_the_same_and_all_is_as_before(
    fake_webui: FakeWebUI, tmp_path: Path, question: str
) -> None:
    assert fake_webui.model is not None
    before = left(fake_webui)
    answers = []
    for number in range(2):
        folder = tmp_path / str(number)
        folder.mkdir()
        answers.append(answer(question, str(folder)))
    assert answers[0] == answers[1]
    assert left(fake_webui) == before
