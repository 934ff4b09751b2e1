"""What a run needs of its device's memory, counted before it starts, class by class.

The count is one step of the run on its own model, most of it on tensors that have sizes but no numbers (torch's fake
tensors): the same code as in training, the largest pictures and the longest captions, and every storage that the step
makes (`training.memory_tracker`). Beside it stands what is there throughout: weights, network, embeddings, the
optimiser's state, averages. The other moments of a run (encoding and drawing pictures, the optimiser's update) are
counted alike; the largest of all is what the run needs.

Known errors: what kernels take for themselves is estimated (`memory_tracker.workspace_bytes`), CUDA's context is a
constant, and memory that the allocator cannot use for gaps is not counted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from lib_pivotal.embeddings.vectors import TrainedEmbeddings
from lib_pivotal.hosting import pictures_at_once
from lib_pivotal.networks.adapter import layer_weight
from lib_pivotal.networks.network import Network
from lib_pivotal.parameter_groups import ParameterGroup
from lib_pivotal.ports import Conditioning, EmbeddingVectors, Host, TrainingBatch
from lib_pivotal.training import build
from lib_pivotal.training.memory_tracker import WORKING, MemoryTracker
from lib_pivotal.training.optimizers import build_optimizer, state_bytes
from lib_pivotal.training.prepared import Prepared

CONTEXT_BYTES = 450 * 2**20
"""CUDA's context with its libraries' kernels, which torch's allocator does not know: 300 to 550 MB."""

CUBLAS_BYTES = 8_519_680
"""cuBLAS's workspace, taken once (torch's default, `:4096:2:16:8`)."""

ENCODED_TOGETHER = 4
"""Pictures that `data.latents` hands to the autoencoder at once."""

PURPOSES = {
    "unet": "U-Net",
    "text": "text encoder",
    "vae": "autoencoder",
    "network": "network",
    "embeddings": "embeddings",
    "optimizer": "optimiser's state",
    "ema": "averages",
    "aside": "weights put aside",
    "gradients": "gradients",
    "kept_unet": "kept for the gradient, U-Net",
    "kept_text": "kept for the gradient, text",
    WORKING: "working memory",
    "context": "CUDA itself",
}
"""What memory is for, in the order in which people read it, and in their words."""


@dataclass(frozen=True)
class MemoryPhase:
    """A kind of moment in a run: bytes by `PURPOSES`, when most is needed."""

    name: str
    parts: Mapping[str, int]

    @property
    def total_bytes(self) -> int:
        """All parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class MemoryCount:
    """All moments of a run."""

    moments: tuple[MemoryPhase, ...]

    @property
    def largest(self) -> MemoryPhase:
        """The one that decides whether the run fits."""
        return max(self.moments, key=lambda moment: moment.total_bytes)

    @property
    def total_bytes(self) -> int:
        """What the run needs."""
        return self.largest.total_bytes

    def moment(self, name: str) -> MemoryPhase:
        """By name."""
        return next(moment for moment in self.moments if moment.name == name)


def count_memory(prepared: Prepared, host: Host, *, as_gpu: bool = False) -> MemoryCount:
    """Count a compiled run on `host`, for which the model is borrowed; nothing is changed.

    `as_gpu` counts a host on the CPU as if it were on a GPU.

    Raises whatever the step raises, also where a module cannot work on tensors without numbers.
    """
    with host.session(prepared.session):
        return _Counter(prepared, host, as_gpu=as_gpu).count()


class _Counter:
    """One run's count, inside its session."""

    def __init__(self, prepared: Prepared, host: Host, *, as_gpu: bool) -> None:
        self._host, self._prepared = host, prepared
        self._on_gpu = as_gpu or host.device.type == "cuda"
        modules = host.modules()
        self._weights = {part: weight_bytes(modules[part]) for part in ("unet", "text", "vae")}
        self._half_vae = any(p.dtype is not torch.float32 for vae in modules["vae"] for p in vae.parameters())
        first = next(parameter for module in modules["unet"] for parameter in module.parameters())
        self._fake_weights = isinstance(first, FakeTensor)
        self._mode: Any = (
            first.fake_mode if isinstance(first, FakeTensor) else FakeTensorMode(allow_non_fake_inputs=True)
        )

    def count(self) -> MemoryCount:
        with self._numberless():
            embeddings = TrainedEmbeddings(
                {
                    w.name: tuple(torch.zeros(w.vectors, width) for width in self._host.text.widths)
                    for w in self._prepared.embeddings
                },
                device=self._host.device,
            )
            network = build.make_network(
                self._prepared.network, self._host.layers(), self._host.device, seed=self._prepared.seed
            )
        parameters = [*embeddings.parameters(), *(network.parameters() if network is not None else ())]
        lasting = self._lasting(embeddings, network, parameters)
        size_px = self._largest_px()
        moments = [
            MemoryPhase("a step", self._parts(lasting, self._step(embeddings, network, parameters, size_px))),
            MemoryPhase("the optimiser's update", self._parts(lasting, self._update(parameters))),
            MemoryPhase("encoding pictures", self._parts({}, self._encoding(size_px), with_vae=True)),
        ]
        if self._prepared.loop.sample_every_steps:
            drawing = self._parts({**lasting, **self._drawn_with(lasting, network)}, self._drawing(), with_vae=True)
            moments.append(MemoryPhase("sampling", drawing))
        return MemoryCount(tuple(moments))

    # ---- what lasts ----

    def _lasting(
        self, embeddings: TrainedEmbeddings, network: Network | None, parameters: Sequence[nn.Parameter]
    ) -> dict[str, int]:
        trained, optimizer = tensor_bytes(parameters), self._prepared.optimizer
        return {
            "network": 0 if network is None else tensor_bytes(network.parameters()),
            "embeddings": tensor_bytes(embeddings.parameters()),
            "optimizer": optimizer_bytes(optimizer.name, parameters, options=optimizer.options),
            "ema": trained if optimizer.ema_decay > 0 else 0,
        }

    def _parts(
        self, lasting: Mapping[str, int], passing: Mapping[str, int], *, with_vae: bool = False
    ) -> dict[str, int]:
        """All of a moment; on a GPU the autoencoder is away where it is not used."""
        found = dict(self._weights)
        if self._on_gpu:
            if not with_vae:
                del found["vae"]
            found["context"] = CONTEXT_BYTES
        for part, size in (*lasting.items(), *passing.items()):
            found[part] = found.get(part, 0) + size
        if self._on_gpu:
            found[WORKING] = found.get(WORKING, 0) + CUBLAS_BYTES
        return {part: found[part] for part in PURPOSES if found.get(part)}

    # ---- what passes ----

    def _step(
        self,
        embeddings: TrainedEmbeddings,
        network: Network | None,
        parameters: Sequence[nn.Parameter],
        size_px: tuple[int, int],
    ) -> dict[str, int]:
        """Forward and backward of the largest micro-batch.

        The text encoder's part is done in earnest where its weights are real: hosts remember what they made of a
        prompt, and must not remember tensors without numbers.
        """
        tally, batch = MemoryTracker(as_gpu=self._on_gpu), self._batch(size_px)
        text: Any = _Encoded()
        step = build.make_micro_step(
            self._prepared, self._host, network, text=text, denoiser=_Counted(self._host, tally)
        )
        attached = contextlib.nullcontext() if network is None else network.attach()
        try:
            with attached:
                with self._earnest(), tally, tally.counting("kept_text"), step.autocast():
                    encoded = self._host.text.encode(batch.captions, embeddings.as_mapping())
                with self._numberless(), tally:
                    text.conditioning = _map(encoded, lambda tensor: self._numbers_off(tensor).requires_grad_())
                    losses = step.losses(
                        batch, {}, seeds=(self._prepared.seed, 0), against_reference=network is not None
                    )
                    losses.sum().backward()
                    text.conditioning = None
                with self._earnest(), tally:
                    given = [tensor for tensor in (encoded.context, encoded.pooled) if tensor is not None]
                    del encoded
                    torch.autograd.backward(given, [torch.zeros_like(tensor) for tensor in given])
            tally.rename((p.grad for p in parameters if p.grad is not None), "gradients")
        finally:
            for parameter in parameters:
                parameter.grad = None
        return tally.peak()

    def _update(self, parameters: Sequence[nn.Parameter]) -> dict[str, int]:
        """All gradients, and what torch's optimisers make of the size of all parameters (a GPU) or of the largest."""
        sizes = [tensor_bytes([parameter]) for parameter in parameters]
        return {"gradients": sum(sizes), WORKING: sum(sizes) if self._on_gpu else max(sizes)}

    def _encoding(self, size_px: tuple[int, int]) -> dict[str, int]:
        """A group of pictures through the autoencoder."""
        width, height = size_px
        count = min(ENCODED_TOGETHER, len(self._prepared.pictures.pictures))
        tally = MemoryTracker(as_gpu=self._on_gpu)
        with torch.no_grad(), self._host.codec.placed(), self._numberless(), tally:  # placed with its numbers
            pixels = torch.zeros(count, 3, height, width, device=self._host.device)
            self._host.codec.encode(pixels)
        return self._as_if_overflowing(tally.peak())

    def _drawn_with(self, lasting: Mapping[str, int], network: Network | None) -> dict[str, int]:
        """The network a second time, read from the file, and on a CPU the weights that it stands in place of."""
        if network is None:
            return {}
        names = set(network.layer_names)
        adapted = [layer_weight(layer) for layer in self._host.layers() if layer.name in names]
        return {"network": 2 * lasting["network"], "aside": 0 if self._on_gpu else tensor_bytes(adapted)}

    def _drawing(self) -> dict[str, int]:
        """The pictures of one preview that are decoded together; the denoising before needs less than a step does."""
        samples = self._prepared.outputs
        side = samples.side_px
        count = min(pictures_at_once(side, side), len(samples.sampled) * len(samples.prompts))
        tally = MemoryTracker(as_gpu=self._on_gpu)
        with torch.no_grad(), self._host.codec.placed(), self._numberless(), tally:  # placed with its numbers
            latents = torch.zeros(count, 4, side // 8, side // 8, device=self._host.device)
            self._host.codec.decode(latents)
        return self._as_if_overflowing(tally.peak())

    def _as_if_overflowing(self, found: dict[str, int]) -> dict[str, int]:
        """SDXL's autoencoder in half precision is known to overflow; what it did is then done again in fp32."""
        if self._half_vae and self._host.info.family == "sdxl":
            found[WORKING] = 2 * found[WORKING] + self._weights["vae"]
        return found

    def _numberless(self) -> contextlib.AbstractContextManager[Any]:
        """Tensors made inside have no numbers."""
        return self._mode

    def _earnest(self) -> contextlib.AbstractContextManager[Any]:
        """Tensors made inside are as the weights: real ones, unless these have no numbers either."""
        return self._mode if self._fake_weights else contextlib.nullcontext()

    def _numbers_off(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        return tensor if isinstance(tensor, FakeTensor) else self._mode.from_tensor(tensor)

    # ---- the largest batch ----

    def _largest_px(self) -> tuple[int, int]:
        """Width and height of the largest bucket that a picture of the run is in."""
        buckets, sets = self._prepared.latents.buckets, self._prepared.pictures
        pictures = (*sets.pictures, *sets.regularisation)
        found = {buckets.assign(picture.width_px, picture.height_px).bucket for picture in pictures}
        largest = max(found, key=lambda bucket: bucket.width_px * bucket.height_px)
        return largest.width_px, largest.height_px

    def _batch(self, size_px: tuple[int, int]) -> TrainingBatch:
        width, height = size_px[0] // 8, size_px[1] // 8
        count = self._prepared.batches.batch_size
        if self._prepared.class_batches is not None:
            count = max(count, self._prepared.class_batches.batch_size)
        captions = _longest(self._prepared, count)
        return TrainingBatch(
            latents=torch.zeros(count, 4, height, width),
            captions=captions,
            mask=None,
            weights=torch.ones(count),
            keys=captions,
            sizes=torch.ones(count, 6),
            inpaint=torch.zeros(count, 5, height, width) if self._host.info.inpainting else None,
        )


class _Encoded:
    """Stands for a text encoder whose work is done."""

    def __init__(self) -> None:
        self.conditioning: Conditioning | None = None

    def encode(self, prompts: Sequence[str], embeddings: EmbeddingVectors) -> Conditioning:
        assert self.conditioning is not None
        return self.conditioning


class _Counted:
    """The host's U-Net, whose tensors are counted as its own."""

    def __init__(self, host: Host, tally: MemoryTracker) -> None:
        self._inner, self._tally = host.denoiser, tally

    def __call__(self, latents: Tensor, timesteps: Tensor, conditioning: Conditioning) -> Tensor:
        with self._tally.counting("kept_unet"):
            return self._inner(latents, timesteps, conditioning)


def _map(encoded: Conditioning, change: Callable[[Tensor], Tensor]) -> Conditioning:
    return replace(
        encoded, context=change(encoded.context), pooled=None if encoded.pooled is None else change(encoded.pooled)
    )


def weight_bytes(modules: Iterable[nn.Module]) -> int:
    """Parameters and buffers, each storage once."""
    return tensor_bytes(t for module in modules for t in (*module.parameters(), *module.buffers()))


def tensor_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the tensors, each once."""
    return sum(tensor.numel() * tensor.element_size() for tensor in {id(t): t for t in tensors}.values())


def optimizer_bytes(name: str, parameters: Sequence[Tensor], *, options: Mapping[str, Any] | None = None) -> int:
    """State that the optimiser will hold: measured by one step on one parameter of each shape."""
    shapes: dict[torch.Size, int] = {}
    for parameter in parameters:
        shapes[parameter.shape] = shapes.get(parameter.shape, 0) + 1
    device = "cuda" if torch.cuda.is_available() else "cpu"
    total = 0
    for shape, count in shapes.items():
        stand_in = nn.Parameter(torch.zeros(shape, device=device))
        stand_in.grad = torch.ones_like(stand_in)
        optimizer = build_optimizer(name, [ParameterGroup("one", [stand_in], lr=1e-4)], options=options)
        optimizer.step()
        total += count * state_bytes(optimizer)
    return total


def _longest(prepared: Prepared, count: int) -> list[str]:
    """As many captions as a batch holds, the longest ones; all differ, since equal ones are encoded once."""
    captions = sorted({picture.caption for picture in prepared.pictures.pictures}, key=len, reverse=True)[:count]
    return [captions[index % len(captions)] + "," * (index // len(captions)) for index in range(count)]
