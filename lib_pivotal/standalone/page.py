"""The training page without the web UI: the same tab over the standalone host and one checkpoint file."""

from __future__ import annotations

import argparse
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lib_pivotal.bundle.format import Problem
from lib_pivotal.bundle.hashes import checkpoint_legacy_hash
from lib_pivotal.bundle.listing import list_folder
from lib_pivotal.commands.runs import make_manager
from lib_pivotal.config import DataConfig, Run
from lib_pivotal.errors import HostError
from lib_pivotal.ports import Host, ModelInfo, TokenTables
from lib_pivotal.prompts import PromptReading
from lib_pivotal.standalone.exits import exit_status
from lib_pivotal.standalone.families import checkpoint_info
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.standalone.token_tables import checkpoint_tables
from lib_pivotal.standalone.tokenizer import clip_reading
from lib_pivotal.training.model_yield import ModelYield, YieldTerms

if TYPE_CHECKING:
    from lib_pivotal.runs.tagging import Tagger

ROOT = Path(__file__).resolve().parents[2]


class StandaloneBackend:
    """Lends one checkpoint, loaded at first use; one lock guards it."""

    def __init__(self, checkpoint: Path, folder: Path, *, device: str = "cpu") -> None:
        self._checkpoint = checkpoint
        self._folder = folder
        self._device = device
        self._lock = threading.Lock()
        self._host: StandaloneHost | None = None
        hashed = "" if checkpoint.is_dir() else f" [{checkpoint_legacy_hash(checkpoint)}]"  # a folder is no one file
        self._title = f"{checkpoint.name}{hashed}"
        for needed in (self.lora_folder(), self.runs_folder()):
            needed.mkdir(parents=True, exist_ok=True)

    def checkpoint(self) -> str:
        """The file's name and short hash."""
        return self._title

    def model_info(self) -> ModelInfo | None:
        """By the names of the file's tensors until it is loaded: they need not say what it predicts."""
        if self._host is not None:
            return self._host.info
        try:
            return checkpoint_info(self._checkpoint)
        except HostError:
            return None

    def lora_folder(self) -> Path:
        """Below the page's folder."""
        return self._folder / "lora"

    def runs_folder(self) -> Path:
        """Below the page's folder."""
        return self._folder / "runs"

    def taken_names(self) -> dict[str, str]:
        """Embeddings of the bundles that are there."""
        summaries = list_folder(self.lora_folder())
        return {embedding.name.lower(): summary.path.name for summary in summaries for embedding in summary.embeddings}

    def token_ids(self, text: str) -> list[int]:
        """By CLIP's own tokenizer."""
        return list(clip_reading().token_ids(text))

    def prompts(self) -> PromptReading:
        """As the standalone host reads them."""
        return clip_reading()

    def unet_shape(self, path: Path) -> None:
        """Names that need it are not written here."""

    def token_tables(self) -> TokenTables:
        """Of the one checkpoint, also while a run has it."""
        return checkpoint_tables(self._checkpoint)

    def loader_problems(self, path: Path) -> list[Problem]:
        """There is no loader here but ours."""
        return []

    def clip_skip(self) -> int:
        """As the checkpoint was trained."""
        return 1

    def set_live(self, on: bool) -> None:
        """Nothing makes pictures here but the run itself."""

    def live_name(self) -> str:
        """Empty: see `set_live`."""
        return ""

    @contextmanager
    def exclusive(self, run: Run) -> Iterator[Host]:
        """The checkpoint, for one run."""
        with self._lock:
            if self._host is None:
                self._host = StandaloneHost.load(self._checkpoint, device=self._device)
            yield self._host

    def model_yield(self) -> ModelYield:
        """Nobody else asks for the model; a pause just waits."""
        return _NobodyWaits()

    def adjusted(self, run: Run) -> Run:
        """There are no settings for all runs."""
        return run

    def scanned_as(self, data: DataConfig) -> DataConfig:
        """There are no settings of file names."""
        return data

    def check_ready(self) -> None:
        """The one checkpoint can be trained."""

    def load_checkpoint(self) -> None:
        """It is always there."""

    def farewell(self) -> str:
        """Nothing to tell: the model stays where it was."""
        return ""

    def bundle_saved(self, path: Path) -> None:
        """Files are read anew each time they are used."""

    def taggers(self) -> Sequence[Tagger]:
        """The web UI's interrogators are not here."""
        return ()


class _NobodyWaits:
    """An `ModelYield` of a process in which the run has the model for itself."""

    def wanted(self) -> bool:
        return False

    def serve(self, terms: YieldTerms) -> None:
        terms.wait()


def main(arguments: list[str] | None = None) -> int:
    """`python dev.py page`."""
    parser = argparse.ArgumentParser(prog="python dev.py page", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "examples/avatars/weights/avatars.safetensors")
    parser.add_argument("--out", type=Path, default=ROOT / "out/page", help="folder for bundles and runs")
    parser.add_argument("--port", type=int, default=7870)
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=_serve)
    parsed = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    return exit_status(parsed)


def _serve(parsed: argparse.Namespace) -> int:
    manager = make_manager(StandaloneBackend(parsed.checkpoint, parsed.out, device=parsed.device))
    from lib_pivotal.ui.standalone_page import serve  # here: tests of the backend need no gradio

    serve(manager, root=ROOT, port=parsed.port)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
