"""What a person at a terminal reads."""

import io
from pathlib import Path

from lib_pivotal.standalone.console import ConsoleListener, bar, clock
from lib_pivotal.training.events import FileSaved, Notice, RunEnded, RunStarted, SeparationMeasured, StepDone, Validated


class Terminal(io.StringIO):
    def isatty(self):
        return True


def step(number, loss=0.25):
    return StepDone(number, 100, "joint", {"loss": loss}, {}, {}, {}, {}, 0.5, 30.0)


def test_log_has_a_line_now_and_then():
    stream = io.StringIO()
    listener = ConsoleListener(stream, log_every_steps=50)
    listener(RunStarted("x", 0, 100, ("aoi",), 1234, 0))
    for number in range(1, 101):
        listener(step(number))
    lines = stream.getvalue().splitlines()
    assert lines[0] == "training x: aoi; 1,234 parameters" and len(lines) == 3
    assert "50/100 joint 2.00 it/s, 0:30 left, loss 0.2500" in lines[1]


def test_terminal_line_moves_and_messages_stay():
    stream = Terminal()
    listener = ConsoleListener(stream)
    listener(step(1, float("nan")))
    listener(Notice("warning", 1, "out of memory"))
    listener(FileSaved(1, "bundle", Path("x.safetensors")))
    listener(FileSaved(1, "state", Path("state.pt")))
    listener(SeparationMeasured(1, {}, {"aoi": 0.5}))
    listener(Validated(1, {"aoi": 0.5}, {"aoi": 0.4}, 0.5, 0.4, 1, 0.5, False))
    listener(RunEnded("stopped", 1, 65.0, None, "stopped after 1 of 100 steps"))
    text = stream.getvalue()
    assert "warning: out of memory\n" in text and "saved x.safetensors\n" in text and "state.pt" not in text
    assert "separation, share in the embeddings: aoi 50%" in text and "stopped after 1 of 100 steps (1:05)" in text
    assert "validation loss 0.5000, of trained pictures 0.4000; lowest 0.5000 at step 1\n" in text
    assert text.count("\r") >= 6


def test_bar_and_clock():
    assert bar(0.5, 4) == "[==  ]" and bar(2, 4) == "[====]" and bar(-1, 4) == "[    ]"
    assert clock(5) == "0:05" and clock(3725) == "1:02:05"
