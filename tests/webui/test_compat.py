"""Which web UI this is, and what differs between versions."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lib_pivotal.errors import HostError
from tests.webui.fake.install import FakeWebUI, installed
from tests.webui.files import write_lora


@pytest.mark.parametrize(
    ("text", "found", "refused"),
    [
        ("## 1.10.1\n", (1, 10, 1), False),
        ("## 1.7.0\n", (1, 7, 0), False),
        ("## 1.6.0-RC\n", (1, 6, 0), True),
        ("", None, False),
    ],
)
def test_version(fake_webui: FakeWebUI, text: str, found: object, refused: bool) -> None:
    from lib_pivotal.webui import compat

    (fake_webui.data / "CHANGELOG.md").write_text(text)
    assert compat.version() == found
    if refused:
        with pytest.raises(HostError, match="git pull"):
            compat.check_version()
    else:
        compat.check_version()
    (fake_webui.data / "CHANGELOG.md").unlink()
    assert compat.version() is None


def test_text_models_base(fake_webui: FakeWebUI, monkeypatch: pytest.MonkeyPatch) -> None:
    from lib_pivotal.webui import compat

    assert compat.text_model_base() is fake_webui.sd_hijack_clip.TextConditionalModel
    monkeypatch.delattr(fake_webui.sd_hijack_clip, "TextConditionalModel")
    assert compat.text_model_base() is fake_webui.sd_hijack_clip.FrozenCLIPEmbedderWithCustomWordsBase


def test_the_queue_lock(fake_webui: FakeWebUI, monkeypatch: pytest.MonkeyPatch) -> None:
    from lib_pivotal.webui import compat

    lock = fake_webui.call_queue.queue_lock
    assert not compat.lock_is_taken() and not compat.jobs_waiting()
    with lock:
        assert compat.lock_is_taken() and not compat.jobs_waiting()
        waiting = threading.Thread(target=lambda: (lock.acquire(), lock.release()))
        waiting.start()
        while not lock._pending_threads:
            pass
        assert compat.jobs_waiting()
    waiting.join()
    assert not compat.lock_is_taken()
    monkeypatch.setattr(fake_webui.call_queue, "queue_lock", threading.Lock())
    assert not compat.jobs_waiting() and not compat.lock_is_taken()
    fake_webui.progress.add_task_to_queue("task(1)")
    assert compat.jobs_waiting()


def test_lora(fake_webui: FakeWebUI, monkeypatch: pytest.MonkeyPatch) -> None:
    from lib_pivotal.webui import compat

    assert compat.lora_networks() is compat.find_lora_networks() is fake_webui.networks
    write_lora(fake_webui, "one", listed=False)
    write_lora(fake_webui, "two", listed=False)
    compat.list_lora_files(["one"])
    assert set(fake_webui.networks.available_networks) == {"one"}
    monkeypatch.delattr(fake_webui.networks, "process_network_files")
    listed: list[int] = []
    monkeypatch.setattr(fake_webui.networks, "list_available_networks", lambda: listed.append(1))
    compat.list_lora_files(["two"])
    assert listed == [1], "before 1.10 all are listed anew"


def test_lora_switched_off(tmp_path: Path) -> None:
    with installed(tmp_path, lora=False):
        from lib_pivotal.webui import compat

        assert compat.find_lora_networks() is None
        with pytest.raises(HostError, match="Enable it in Extensions"):
            compat.lora_networks()


def test_the_loaded_model_is_asked_for_without_loading_one(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import compat

    assert compat.loaded_model() is None
    assert fake_webui.sd_models.model_data.sd_model is None
    assert compat.loaded_model() is not fake_webui.model
    assert compat.loaded_model() is fake_webui.model
    assert compat.ui_module() is fake_webui.ui


def test_callbacks_are_added_in_a_thread_of_their_own(fake_webui: FakeWebUI) -> None:
    from lib_pivotal.webui import compat

    names: list[str] = []
    compat.in_fresh_thread(lambda: names.append(threading.current_thread().name))
    assert names[0].startswith("pivotal") and threading.current_thread().name not in names
    with pytest.raises(ValueError, match="told"):
        compat.in_fresh_thread(lambda: (_ for _ in ()).throw(ValueError("told")))
