"""The web UI as `runs.backend.TrainerBackend`: whose turn it is, where files go, and what is known of names."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from modules import call_queue, paths, sd_hijack, sd_models, shared

from lib_pivotal.bundle.format import Problem
from lib_pivotal.config import DataConfig, Run
from lib_pivotal.errors import HostError
from lib_pivotal.file_names import LIVE_NAME
from lib_pivotal.files import typed_path
from lib_pivotal.ports import ModelInfo, TokenTables
from lib_pivotal.prompts import COMMA_BACKTRACK, IdsAsTokenizer, PromptReading, PromptRules, RememberingTokenizer
from lib_pivotal.training.model_yield import ModelYield, YieldTerms
from lib_pivotal.webui import (
    adjusting,
    catalog,
    compat,
    families,
    file_invalidation,
    resolution_patch,
    settings,
    tagging,
)

if TYPE_CHECKING:
    from lib_pivotal.bundle.layer_names import UnetShape
    from lib_pivotal.runs.tagging import Tagger
    from lib_pivotal.webui.model import WebUIHost

logger = logging.getLogger(__name__)

EMBEDDINGS = "embeddings folder"
HANDOVER_S = 2.0
"""So long at most until the job that waited first has taken the lock that was released for it."""


class WebUIBackend:
    """Lends `shared.sd_model`, one run at a time, under the web UI's queue lock."""

    def __init__(self) -> None:
        self._host: WebUIHost | None = None
        self._live = False
        self._farewell = ""
        self._tokenizer = RememberingTokenizer(IdsAsTokenizer(_ids_now))

    def checkpoint(self) -> str:
        """The loaded checkpoint's title; nothing is loaded for it."""
        model = compat.loaded_model()
        info = getattr(model, "sd_checkpoint_info", None)
        return "" if info is None else str(info.title)

    def model_info(self) -> ModelInfo | None:
        """Of the loaded checkpoint, if it can be trained; nothing is loaded for it."""
        model = compat.loaded_model()
        if model is None:
            return None
        from lib_pivotal.webui.session import trainable_info  # here: to start, no model is borrowed

        return trainable_info(model)

    def lora_folder(self) -> Path:
        """models/Lora, or what --lora-dir says."""
        return Path(shared.cmd_opts.lora_dir)

    def runs_folder(self) -> Path:
        """From the settings; relative ones count from the data folder."""
        return Path(paths.data_path) / typed_path(settings.value("pivotal_runs_folder"))

    def taken_names(self) -> dict[str, str]:
        """Embeddings of all LoRA files, embedding files' names, and those that are registered now."""
        names = catalog.embeddings_by_name()
        names |= {name.lower(): EMBEDDINGS for name in sd_hijack.model_hijack.embedding_db.word_embeddings}
        folder = Path(shared.cmd_opts.embeddings_dir)
        return names | {path.stem.lower(): EMBEDDINGS for path in folder.rglob("*.*") if path.is_file()}

    def token_ids(self, text: str) -> Sequence[int]:
        """Of the loaded checkpoint; nothing is loaded for it."""
        return () if compat.loaded_model() is None else resolution_patch.ids_of(text)

    def prompts(self) -> PromptReading | None:
        """By the loaded checkpoint's text encoder and the settings for prompts; nothing is loaded for it."""
        if compat.loaded_model() is None or not resolution_patch.model_widths():
            return None
        backtrack = int(getattr(shared.opts, "comma_padding_backtrack", COMMA_BACKTRACK))
        rules = PromptRules(backtrack, getattr(shared.opts, "emphasis", "Original") != "None")
        return PromptReading(self._tokenizer.ids, rules)

    def unet_shape(self, path: Path) -> UnetShape | None:
        """Of the loaded checkpoint, if the file is for its family."""
        from lib_pivotal.webui import file_checks  # here: to start, no file is looked at

        return file_checks.unet_shape(path)

    def token_tables(self) -> TokenTables | None:
        """Of the loaded checkpoint; nothing is loaded for it."""
        if compat.loaded_model() is None or not resolution_patch.model_widths():
            return None
        return adjusting.token_tables()

    def loader_problems(self, path: Path) -> list[Problem]:
        """What a web UI without this extension makes of the file with this checkpoint."""
        from lib_pivotal.webui import file_checks  # here: as in unet_shape

        return file_checks.stock_loader_says(path.stem)

    def clip_skip(self) -> int:
        """The setting that pictures are made with."""
        return int(shared.opts.CLIP_stop_at_last_layers)

    def set_live(self, on: bool) -> None:
        """See `live_name`."""
        self._live = on
        if not on:
            self._remove_live_file()

    def live_name(self) -> str:
        """While it is on, a bundle of this name holds the network as it is; renewed whenever a job gets its turn."""
        return LIVE_NAME

    def adjusted(self, run: Run) -> Run:
        """From the settings section "Pivotal tuning"."""
        saving = replace(
            run.saving,
            dtype=str(settings.value("pivotal_precision")),
            keep_states=int(settings.value("pivotal_keep_states")),
            state_every_steps=int(settings.value("pivotal_state_every_steps")) or run.saving.state_every_steps,
            sample_every_steps=int(settings.value("pivotal_preview_every_steps")) or run.saving.sample_every_steps,
        )
        return replace(run, saving=saving, clip_skip=self.clip_skip())

    def scanned_as(self, data: DataConfig) -> DataConfig:
        """Its "Filename word regex" and "Filename join string" (section "Training"), unless the run has its
        own."""
        pattern = str(getattr(shared.opts, "dataset_filename_word_regex", "") or "")
        if data.name_words or not pattern:
            return data
        try:
            re.compile(pattern)
        except re.error:
            logger.warning(
                "the web UI's setting Filename word regex is not a regular expression and not used: %s", pattern
            )
            return data
        return replace(data, name_words=pattern, name_join=str(shared.opts.dataset_filename_join_string or ""))

    def check_ready(self) -> None:
        """What is loaded now; nothing is loaded for it."""
        model = compat.loaded_model()
        if model is not None:
            from lib_pivotal.webui.session import check_trainable  # here: as in model_info

            check_trainable(model)

    @contextmanager
    def exclusive(self, run: Run) -> Iterator[WebUIHost]:
        """The queue lock, and the loaded checkpoint as a host."""
        from lib_pivotal.webui.model import WebUIHost  # here: as in model_info
        from lib_pivotal.webui.session import check_trainable

        call_queue.queue_lock.acquire()
        try:
            check_trainable(shared.sd_model)
            self._host = WebUIHost()
            yield self._host
        finally:
            host, self._host = self._host, None
            self._farewell = "" if host is None else host.borrowing.memory_line
            self._remove_live_file()
            call_queue.queue_lock.release()

    def model_yield(self) -> ModelYield:
        """Between two steps, whoever waits for the queue lock gets it."""
        return _LockYield(self)

    def load_checkpoint(self) -> None:
        """The one of the run that goes on, as if it were chosen above."""
        title = self.host.borrowing.checkpoint_title
        info = sd_models.get_closet_checkpoint_match(title)
        if info is None:
            raise HostError(f"the checkpoint {title} is not listed any more. Put the file back, and refresh the list.")
        with call_queue.queue_lock:
            shared.opts.set("sd_model_checkpoint", info.title, run_callbacks=False)
            # a model that a failed load left taken apart counts as loaded for the web UI, which would do nothing
            model = compat.loaded_model()
            apart = model is not None and families.is_taken_apart(model)
            sd_models.reload_model_weights(info=info, **({"forced_reload": True} if apart else {}))

    def farewell(self) -> str:
        """GPU memory before and after."""
        return self._farewell

    def bundle_saved(self, path: Path) -> None:
        """Forget what was kept of an older file, and list the new one."""
        file_invalidation.forget_lora_file(path)

    def taggers(self) -> Sequence[Tagger]:
        """DeepDanbooru and BLIP."""
        return tagging.taggers()

    # ---- for yielding the model ----

    @property
    def host(self) -> WebUIHost:
        """The host of the run that is going on."""
        if self._host is None:
            raise HostError("no run has the model")
        return self._host

    def write_live(self, write_bundle: Callable[[Path], Path]) -> None:
        """Renew the live bundle, if it is wanted; a failure is told in the log and holds nobody up."""
        if not self._live:
            return
        try:
            file_invalidation.forget_lora_file(write_bundle(self._live_path()))
        except Exception:  # a picture without the live network is better than none
            logger.exception("the live network could not be written")

    def _live_path(self) -> Path:
        return self.lora_folder() / f"{LIVE_NAME}.safetensors"

    def _remove_live_file(self) -> None:
        path = self._live_path()
        if path.exists():
            with suppress(OSError):
                path.unlink()
            file_invalidation.forget_lora_file(path)


def _ids_now(text: str) -> Sequence[int]:
    """By the checkpoint that is loaded now: of plain text all have the same."""
    return [int(token) for token in shared.sd_model.cond_stage_model.tokenize([text])[0]]


class _LockYield:
    """`ModelYield` over the queue lock."""

    def __init__(self, backend: WebUIBackend) -> None:
        self._backend = backend

    def wanted(self) -> bool:
        return compat.jobs_waiting()

    def serve(self, terms: YieldTerms) -> None:
        borrowing = self._backend.host.borrowing
        self._backend.write_live(terms.write_bundle)
        with borrowing.suspended():
            _hand_over(terms.wait)
            told = False
            while not borrowing.is_loaded() and not terms.stopping():
                if not told:
                    needed = borrowing.checkpoint_title
                    terms.say(f"another checkpoint is loaded now; the run continues when {needed} is back")
                    told = True
                _hand_over(lambda: time.sleep(0.5))


def _hand_over(meanwhile: Callable[[], None]) -> None:
    """Release the queue lock, see to it that whoever waited has it, do `meanwhile`, and queue up again."""
    waiting = compat.jobs_waiting()
    call_queue.queue_lock.release()
    try:
        deadline = time.monotonic() + HANDOVER_S
        # FIFOLock takes the first in the queue off it before that thread has the lock: do not jump in between
        while waiting and not compat.lock_is_taken() and time.monotonic() < deadline:
            time.sleep(0.002)
        meanwhile()
    finally:
        call_queue.queue_lock.acquire()
