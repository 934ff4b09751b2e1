"""What a run writes and shows: bundles with metadata, the four rows through the saved file, the separation score."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from PIL import Image

from lib_pivotal.bundle.embedding_files import write_embedding
from lib_pivotal.bundle.layer_names import host_shape
from lib_pivotal.bundle.listing import rank_metadata
from lib_pivotal.bundle.metadata import build_metadata
from lib_pivotal.bundle.network_layouts import for_webui, with_whole_attention
from lib_pivotal.bundle.reader import Bundle, read_bundle, require
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError
from lib_pivotal.files import is_taken, publish
from lib_pivotal.networks.network import Network
from lib_pivotal.ports import EmbeddingVectors, Host, TrainingBatch
from lib_pivotal.training.events import Event, FileSaved, Notice, PicturesMade, SeparationMeasured
from lib_pivotal.training.first_phase import gain
from lib_pivotal.training.prepared import Prepared
from lib_pivotal.training.progress import Progress
from lib_pivotal.training.start_file import FrozenParts
from lib_pivotal.training.step import MicroStep
from lib_pivotal.training.trainable import Trainable
from lib_pivotal.training.training_metadata import training_facts
from lib_pivotal.training.validation import ValidationLosses, ValidationProgress


@dataclass(frozen=True)
class PartsGrid:
    """Samples of a file with parts of it off: pictures by row, one a column (a prompt), and all of them as one."""

    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[Image.Image]]
    picture: Image.Image


class Evaluation(Protocol):
    """How a run is looked at while it trains. It uses training's step, so whoever starts a run hands it in."""

    def parts_grid(
        self, host: Host, bundle: Bundle, names: Sequence[str], *, prompts: Sequence[str], size_px: int, title: str
    ) -> PartsGrid:
        """Samples of the embeddings `names`, through the saved file."""
        ...

    def separation(
        self,
        micro_step: MicroStep,
        held_out: Mapping[str, Sequence[TrainingBatch]],
        *,
        embeddings: EmbeddingVectors,
        initial_embeddings: EmbeddingVectors,
        network: Network | None,
        base: Mapping[str, float],
    ) -> tuple[dict[str, dict[str, float]], dict[str, float]]:
        """By embedding: held-out losses with parts off, and the share of the embedding; `base` are the losses of the
        initial embeddings without the network."""
        ...

    def embeddings_alone(
        self,
        micro_step: MicroStep,
        held_out: Mapping[str, Sequence[TrainingBatch]],
        *,
        embeddings: EmbeddingVectors,
        network: Network | None,
    ) -> dict[str, float]:
        """By embedding: the held-out loss with these vectors and without the network."""
        ...

    def picture_losses(
        self,
        micro_step: MicroStep,
        pictures: Sequence[TrainingBatch],
        *,
        embeddings: EmbeddingVectors,
        noise_levels: int,
        timesteps: tuple[int, int],
        at_once: int,
    ) -> list[float]:
        """The validation loss of each picture, with all that is trained switched on."""
        ...


@dataclass(frozen=True, eq=False)
class MeasuredPictures:
    """What is measured on: batches of one by embedding ("" in a run without), with their captions as they are.

    `held_out` is never trained; `trained` are as many pictures that are. `micro_step` makes the validation loss.
    """

    held_out: Mapping[str, Sequence[TrainingBatch]]
    trained: Mapping[str, Sequence[TrainingBatch]]
    micro_step: MicroStep
    timesteps: tuple[int, int]

    @property
    def fingerprint(self) -> str:
        """Tells these held-out pictures, with their captions and timesteps, from others."""
        facts = [[b.keys, b.captions] for batches in self.held_out.values() for b in batches]
        return hashlib.blake2b(json.dumps([facts, self.timesteps]).encode(), digest_size=8).hexdigest()


class RunOutputs:
    """The files and pictures of a run, as it is now."""

    def __init__(
        self,
        prepared: Prepared,
        host: Host,
        *,
        folder: Path,
        log_folder: Path,
        trainable: Trainable,
        micro_step: MicroStep,
        initial_embeddings: EmbeddingVectors,
        frozen: FrozenParts,
        progress: Progress,
        overwrite: bool,
        measured: MeasuredPictures,
        evaluation: Evaluation | None,
    ) -> None:
        self._prepared = prepared
        self._plan = prepared.outputs
        self._host = host
        self._folder = folder
        self._log_folder = log_folder
        self._trainable = trainable
        self._micro_step = micro_step
        self._initial_embeddings = initial_embeddings
        self._frozen = frozen
        self._measured = measured
        self._held_out = {name: batches for name, batches in measured.held_out.items() if name}
        self._evaluation = evaluation
        self._base_losses: dict[str, float] | None = None
        self._started = time.time()
        self._progress = progress
        self._overwrite = overwrite
        progress.validation = ValidationProgress(pictures=measured.fingerprint)

    def save_bundle(self, step: int, final: bool) -> list[Event]:
        """`<name>.safetensors` at the end, `<name>-000500.safetensors` on the way; embedding files where wanted.

        A file is written to the run's own folder and published from there, so that what was trained is on the disk
        before the place that the user looks at is touched. The last file of a run goes, where its folder cannot be
        written (a full disk, say), straight to its place, or else to the system's temporary folder.

        Raises:
            BundleError, OSError: it could not be written, the last one nowhere.
        """
        name = self._prepared.name if final else f"{self._prepared.name}-{step:06d}"
        events: list[Event] = []
        path = self._write_somewhere(f"{name}.safetensors", step, events, last=final)
        events.append(FileSaved(step, "bundle", path))
        if final and self._plan.embedding_files:
            events += self._save_embeddings(path, step)
        return events

    def _write_somewhere(self, file_name: str, step: int, events: list[Event], *, last: bool) -> Path:
        """Where the file is in the end; what went otherwise than it should is added to `events`."""
        first = self._log_folder / file_name
        try:
            written = self._write(first, step)
        except (OSError, BundleError) as error:
            if not last:
                raise
            return self._write_elsewhere(file_name, step, events, why=error)
        return self._publish(written, step, events)

    def _write_elsewhere(self, file_name: str, step: int, events: list[Event], *, why: Exception) -> Path:
        """The last file, where the run's own folder does not take it."""
        reasons = [str(why)]
        folders = [self._folder] if self._folder != self._log_folder else []
        for folder in (*folders, None):
            try:
                place = folder or Path(tempfile.mkdtemp(prefix="pivotal-"))
                path = self._write(place / file_name, step)
            except (OSError, BundleError) as error:
                reasons.append(str(error))
                continue
            if folder is None:
                text = f"{reasons[-1].rstrip('.')}. The trained file was saved as {path}: move it from there"
                events.append(Notice("error", step, text))
            return path
        raise BundleError("; ".join(reasons))

    def _publish(self, written: Path, step: int, events: list[Event]) -> Path:
        """The file at its place, where pictures can be made with it; where it was written if that cannot be."""
        target = self._folder / written.name
        if target == written:
            return target
        if is_taken(target) and not self._overwrite and not self._prepared.results.has(target):
            text = f"{target}: there is a file of this name that is not this run's. It stays; this run's is {written}"
            events.append(Notice("error", step, text))
            return written
        try:
            publish(written, target)
        except OSError as error:
            text = f"{target}: cannot be written ({error.strerror or error}). The file is {written}: move it from there"
            events.append(Notice("error", step, text))
            return written
        return target

    def _save_embeddings(self, bundle: Path, step: int) -> list[Event]:
        """One file each beside the bundle; one that cannot be written is told."""
        events: list[Event] = []
        dtype = self._plan.dtype
        for embedding, vectors in self._embedding_tensors().items():
            target = bundle.parent / f"{embedding}.safetensors"
            if target == bundle:
                target = bundle.parent / f"{embedding}-word.safetensors"
            kept = self._frozen.embeddings.get(embedding)
            try:
                write_embedding(target, kept or vectors, name=embedding, dtype=None if kept else dtype)
            except (OSError, BundleError) as error:
                events.append(Notice("error", step, f"the embedding {embedding!r} has no file of its own: {error}"))
            else:
                events.append(FileSaved(step, "embedding", target))
        return events

    def make_pictures(self, step: int) -> list[Event]:
        """The four rows, drawn through a file written now and read back: what one sees is what one gets."""
        if self._evaluation is None:
            return []
        plan = self._plan
        kept = self._keep_sampled(step)
        with tempfile.TemporaryDirectory() as folder:
            file = kept or self._write(Path(folder) / "preview.safetensors", step)
            bundle = require(read_bundle(file))
        live = self._trainable.network
        with nullcontext() if live is None else live.with_multipliers(unet=0.0, te=0.0):
            grid = self._evaluation.parts_grid(
                self._host,
                bundle,
                plan.sampled,
                prompts=plan.prompts,
                size_px=plan.side_px,
                title=f"{self._prepared.name}, step {step}",
            )
        path = self._log_folder / f"{self._prepared.name}-{step:06d}.png"
        grid.picture.save(path)
        return [PicturesMade(step, grid.picture, path, grid.columns, self._save_cells(grid.rows, step), kept)]

    def _keep_sampled(self, step: int) -> Path | None:
        """The bundle at this step in the run's folder; None where that is not wanted, or the disk is full."""
        if not self._plan.keep_sampled:
            return None
        folder = self._log_folder / "steps"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return self._write(folder / f"{self._prepared.name}-{step:06d}.safetensors", step)
        except (OSError, BundleError):
            return None

    def write_copy(self, path: Path) -> Path:
        """The bundle as it is now, written to `path`; the run's own files are not touched."""
        return self._write(path, self._progress.step)

    def _save_cells(self, rows: Mapping[str, Sequence[Image.Image]], step: int) -> dict[str, tuple[Path, ...]]:
        """Each picture as a file of its own: pages show them in whatever order they like."""
        folder = self._log_folder / "pictures" / f"{step:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        cells: dict[str, tuple[Path, ...]] = {}
        for number, (label, pictures) in enumerate(rows.items()):
            paths = tuple(folder / f"{number}-{column:03d}.png" for column in range(len(pictures)))
            for path, picture in zip(paths, pictures, strict=True):
                picture.save(path)
            cells[label] = paths
        return cells

    def measure_separation(self, step: int) -> list[Event]:
        """Held-out losses with parts off; nothing where no picture was held out."""
        if self._evaluation is None or not self._held_out:
            return []
        losses, shares = self._evaluation.separation(
            self._micro_step,
            self._held_out,
            embeddings=self._trainable.embeddings.as_mapping(),
            initial_embeddings=self._initial_embeddings,
            network=self._trainable.network,
            base=self._losses_at_start(self._evaluation),
        )
        self._progress.shares = {name: share for name, share in shares.items() if math.isfinite(share)}
        return [SeparationMeasured(step, losses, shares)]

    def validation_losses(self) -> ValidationLosses:
        """The validation loss of held-out pictures, and of as many trained ones at the same noise."""
        evaluation, plan, measured = self._evaluation, self._prepared.validation, self._measured
        if evaluation is None:
            return ValidationLosses()

        def losses(groups: Mapping[str, Sequence[TrainingBatch]]) -> dict[str, Sequence[float]]:
            pictures = [batch for batches in groups.values() for batch in batches]
            found = iter(
                evaluation.picture_losses(
                    measured.micro_step,
                    pictures,
                    embeddings=self._trainable.embeddings.as_mapping(),
                    noise_levels=plan.noise_levels,
                    timesteps=measured.timesteps,
                    at_once=plan.at_once,
                )
            )
            return {name: [next(found) for _ in batches] for name, batches in groups.items()}

        return ValidationLosses.of(losses(measured.held_out), losses(measured.trained))

    def keep_best(self, step: int) -> list[Event]:
        """The bundle of the lowest validation loss, in the run's folder, in the place of the one before."""
        folder = self._log_folder / "steps"
        folder.mkdir(parents=True, exist_ok=True)
        return [FileSaved(step, "best", self._write(folder / f"{self._prepared.name}-best.safetensors", step))]

    def embeddings_gain(self) -> float:
        """`first_phase.gain` of the held-out pictures; NaN where there are none."""
        if self._evaluation is None or not self._held_out:
            return math.nan
        now = self._alone(self._evaluation, self._trainable.embeddings.as_mapping())
        return gain(now, self._losses_at_start(self._evaluation))

    def _losses_at_start(self, evaluation: Evaluation) -> dict[str, float]:
        """Held-out losses of the checkpoint with the initial embeddings: measured once."""
        if self._base_losses is None:
            self._base_losses = self._alone(evaluation, self._initial_embeddings)
        return self._base_losses

    def _alone(self, evaluation: Evaluation, embeddings: EmbeddingVectors) -> dict[str, float]:
        return evaluation.embeddings_alone(
            self._micro_step, self._held_out, embeddings=embeddings, network=self._trainable.network
        )

    def _write(self, path: Path, step: int) -> Path:
        network = {} if self._trainable.network is None else self._trainable.network.kohya_tensors()
        if network:
            network = for_webui(network, host_shape(self._host))
            network = with_whole_attention(network, self._host.info.family)
        embeddings, metadata = self._embedding_tensors(), self._metadata(step)
        dtype: torch.dtype | None = self._plan.dtype
        if self._frozen:
            network, embeddings = self._frozen.put_into(network, embeddings, dtype=self._plan.dtype)
            dtype = None
        if self._prepared.start is not None:  # whose file may have other ranks and alphas than the settings
            metadata |= rank_metadata(network)
        return write_bundle(path, network=network, embeddings=embeddings, metadata=metadata, dtype=dtype)

    def _embedding_tensors(self) -> dict[str, tuple[torch.Tensor, ...]]:
        return {
            name: tuple(tensor.detach().cpu() for tensor in towers)
            for name, towers in self._trainable.embeddings.as_mapping().items()
        }

    def _metadata(self, step: int) -> dict[str, str]:
        facts = training_facts(
            self._prepared,
            self._host.info,
            step=step,
            images_seen=self._progress.images_seen,
            shares=self._progress.shares,
            started_at=self._started,
        )
        return build_metadata(facts)
