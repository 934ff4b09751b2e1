"""The queue's file: one step, one process at a time, and what cannot be understood is kept."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lib_pivotal.errors import HostError
from lib_pivotal.runs.queue import QueuedRun, RunQueue
from lib_pivotal.runs.queue_file import QueueFile

ROOT = Path(__file__).parents[2]


def add(name):
    return lambda queue: queue.with_added([QueuedRun(name=name)])


def test_it_is_there_after_a_restart(tmp_path):
    assert QueueFile(tmp_path / "runs").look() == RunQueue() and not (tmp_path / "runs").exists()
    made = QueueFile(tmp_path / "runs").change(add("x"))
    assert QueueFile(tmp_path / "runs").look() == made and made.runs[0].name == "x"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"version": 1, "runs": 3}', b'{"version": 9}'])
def test_a_broken_file_is_set_aside(tmp_path, content):
    (tmp_path / "queue.json").write_bytes(content)
    for _ in range(2):  # also for whoever looks later
        queue = QueueFile(tmp_path).look()
        assert queue.paused and not queue.runs and "could not be understood" in queue.notice
    (aside,) = tmp_path.glob("queue.broken-*.json")
    assert aside.read_bytes() == content and str(aside) in queue.notice


def test_two_broken_files_are_both_kept(tmp_path):
    for content in (b"one", b"two"):
        (tmp_path / "queue.json").write_bytes(content)
        QueueFile(tmp_path).look()
    assert {path.read_bytes() for path in tmp_path.glob("queue.broken-*.json")} == {b"one", b"two"}


def test_a_refused_change_changes_nothing(tmp_path):
    file = QueueFile(tmp_path)
    file.change(add("x"))
    before = file.path.read_bytes()
    with pytest.raises(HostError, match="no run 7"):
        file.change(lambda queue: queue.without(7))
    assert file.path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    for act in (lambda file: file.change(add("x")), QueueFile.serve):
        with pytest.raises(HostError, match="the queue"):
            act(QueueFile(tmp_path / "file" / "below"))


def test_no_change_of_many_at_once_is_lost(tmp_path):
    def work(number):
        for each in range(10):
            QueueFile(tmp_path).change(add(f"{number}-{each}"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue = QueueFile(tmp_path).look()
    assert len({entry.name for entry in queue.runs}) == 40 == len({entry.id for entry in queue.runs})


def test_one_process_serves_until_it_is_killed(tmp_path):
    held = (
        "import sys, time; from pathlib import Path; from lib_pivotal.runs.queue_file import QueueFile; "
        "file = QueueFile(Path(sys.argv[1])); print(file.serve(), flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", held, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().strip() == "True"
        file = QueueFile(tmp_path)
        assert not file.serve() and not file.serves
        file.change(add("x"))  # may be filled all the same
        process.kill()
        process.wait(60)
        assert file.serve() and file.serves and file.serve()
        file.release()
        assert QueueFile(tmp_path).serve()
    finally:
        process.kill()
        process.wait(60)
