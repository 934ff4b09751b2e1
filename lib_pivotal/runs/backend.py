"""What runs ask of the process around them: the web UI, or the page that stands alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lib_pivotal.config import DataConfig, Run

if TYPE_CHECKING:
    from lib_pivotal.bundle.format import Problem
    from lib_pivotal.bundle.layer_names import UnetShape
    from lib_pivotal.ports import Host, ModelInfo, TokenTables
    from lib_pivotal.prompts import PromptReading
    from lib_pivotal.runs.tagging import Tagger
    from lib_pivotal.training.model_yield import ModelYield


class TrainerBackend(Protocol):
    """A process that lends its checkpoint.

    Every method may raise `HostError`, whose text is for the user. Methods are called from several threads.
    """

    def checkpoint(self) -> str:
        """Name (and short hash) of the loaded checkpoint, for the page's head; empty where there is none."""
        ...

    def model_info(self) -> ModelInfo | None:
        """What kind the checkpoint is, as far as that can be told without waiting for it: hashes may be empty."""
        ...

    def lora_folder(self) -> Path:
        """Where finished bundles go: pictures can be made with them from there at once."""
        ...

    def runs_folder(self) -> Path:
        """Where each run gets a folder of its own: run.json, events, states, pictures, plots."""
        ...

    def taken_names(self) -> Mapping[str, str]:
        """Names that stand for something already, lower case, and where: "embeddings folder", or a bundle's file."""
        ...

    def token_ids(self, text: str) -> Sequence[int]:
        """The loaded checkpoint's token ids of a text; empty where no tokenizer is there."""
        ...

    def prompts(self) -> PromptReading | None:
        """How the loaded checkpoint's prompts are read; None where no tokenizer is there. Nothing is loaded for it."""
        ...

    def unet_shape(self, path: Path) -> UnetShape | None:
        """The blocks of the U-Net that a LoRA file was made for, where that is the loaded one's; None: not known."""
        ...

    def token_tables(self) -> TokenTables | None:
        """The loaded checkpoint's vocabulary; None where no checkpoint is loaded that takes embeddings."""
        ...

    def loader_problems(self, path: Path) -> Sequence[Problem]:
        """What the process's own loader of LoRA files makes of a file; empty where there is no such loader."""
        ...

    def clip_skip(self) -> int:
        """The clip skip that pictures are made with now: a run's default."""
        ...

    def set_live(self, on: bool) -> None:
        """Whether pictures made during a run may use the network as it is, under the name `live_name`."""
        ...

    def live_name(self) -> str:
        """The name for `<lora:NAME:1>`, or empty where that cannot be done."""
        ...

    def adjusted(self, run: Run) -> Run:
        """`run` with what the user has chosen for all runs (precision of files, how often to save and to draw)."""
        ...

    def scanned_as(self, data: DataConfig) -> DataConfig:
        """Settings of pictures, and where they say nothing of file names as captions, what the process's own say."""
        ...

    def check_ready(self) -> None:
        """Refuse what cannot be trained, as far as that can be told without waiting for the model.

        Raises:
            HostError: the reason, and what to do.
        """
        ...

    def exclusive(self, run: Run) -> AbstractContextManager[Host]:
        """The model for one run alone; the calling thread waits for its turn. All is given back on exit.

        Raises:
            HostError: what is loaded cannot be trained; says why, and what to do.
        """
        ...

    def model_yield(self) -> ModelYield:
        """How the run inside `exclusive` lets others have the model between two steps."""
        ...

    def load_checkpoint(self) -> None:
        """Load the checkpoint that a waiting run needs; blocks until it is there. For a button.

        Raises:
            HostError: no run waits, or the file is gone.
        """
        ...

    def farewell(self) -> str:
        """After `exclusive`: how the model was given back (memory), in a line; empty where there is nothing to say."""
        ...

    def bundle_saved(self, path: Path) -> None:
        """A bundle was written: forget every older copy of it, and list it."""
        ...

    def taggers(self) -> Sequence[Tagger]:
        """What can write captions here; empty where nothing can."""
        ...
