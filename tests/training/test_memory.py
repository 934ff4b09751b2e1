"""The counted memory of a run against what torch's allocator hands out in its real steps, for every family."""

import contextlib
import gc
import hashlib
from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from lib_pivotal.borrowing import OffloadedModel
from lib_pivotal.config import run_from_dict
from lib_pivotal.standalone.model import StandaloneHost
from lib_pivotal.training import build
from lib_pivotal.training.events import RunStarted, StepDone
from lib_pivotal.training.memory import CONTEXT_BYTES, PURPOSES, count_memory, optimizer_bytes, tensor_bytes
from lib_pivotal.training.memory_tracker import unfolds
from lib_pivotal.training.trainable import Trainable
from tests.standalone import tiny_families
from tests.training.runs import compiled, train


def make_run(folder, *, px=64, batch=2, rank=2, checkpointing=False, **schedule):
    return run_from_dict(
        {
            "name": "two",
            "words": [{"name": "aoi", "vectors": 2}, {"name": "hana", "vectors": 3}],
            "network": {"unet_rank": rank, "te_rank": 2, "te_targets": "attention+mlp", "te_lr": 1e-3},
            "data": {"folder": str(folder), "resolution_px": px},
            "schedule": {"max_steps": 3, "batch_size": batch, **schedule},
            "memory": {"gradient_checkpointing": checkpointing},
            "saving": {"state_every_steps": 0},
        }
    )


def make_host(family, dtype=torch.float32):
    found = tiny_families.make(family)
    for model in found.models():
        model.to(dtype)
    return StandaloneHost(
        text_model=found.text_model,
        text_model_2=found.text_model_2,
        unet=found.unet,
        vae=found.vae,
        tokenizer=found.tokenizer,
        scale_factor=found.scale_factor,
        family=family,
    )


def allocated(work):
    """The largest sum of live tensors that `work` allocated, by the profiler's records."""
    gc.collect()
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as records:
            work()
    finally:
        gc.enable()
    live = most = 0
    events = [event for event in records.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


def passing(moment):
    return sum(
        size for part, size in moment.parts.items() if part in ("kept_unet", "kept_text", "working", "gradients")
    )


@pytest.mark.parametrize(
    ("family", "dtype", "settings"),
    [
        ("sd1", torch.float32, {}),
        ("sd1", torch.float32, {"px": 128, "batch": 1, "rank": 16, "checkpointing": True}),
        ("sd2", torch.bfloat16, {"batch": 3}),
        ("sdxl", torch.float32, {"checkpointing": True}),
        ("sd1", torch.float16, {"batch": 1}),
    ],
)
def test_within_a_tenth_of_what_real_steps_allocate(two_embeddings_folder, family, dtype, settings):
    host, run = make_host(family, dtype), make_run(two_embeddings_folder, **settings)
    prepared = compiled(run)
    count = count_memory(prepared, host)
    with host.session(prepared.session):
        embeddings = build.make_embeddings(prepared.embeddings, host.text, host.device, seed=prepared.seed)
        network = build.make_network(prepared.network, host.layers(), host.device, seed=prepared.seed)
        step = build.make_micro_step(prepared, host, network)
        batch = batch_of(run)

        def work():
            step.losses(batch, embeddings.as_mapping(), seeds=(0, 0)).sum().backward()

        with network.attach():
            measured = allocated(work)
        side = run.data.resolution_px
        encoding = allocated(lambda: host.codec.encode(torch.zeros(4, 3, side, side)))
    assert passing(count.moment("a step")) == pytest.approx(measured, rel=0.1)
    if dtype is torch.float32 or unfolds(dtype):  # what half precision takes on other CPUs was not measured
        assert passing(count.moment("encoding pictures")) == pytest.approx(encoding, rel=0.1)


def batch_of(run):
    from lib_pivotal.ports import TrainingBatch

    count, side = run.schedule.batch_size, run.data.resolution_px // 8
    return TrainingBatch(
        latents=torch.zeros(count, 4, side, side),
        captions=[f"aoi, number {index}" for index in range(count)],
        mask=None,
        weights=torch.ones(count),
        keys=[str(index) for index in range(count)],
        sizes=torch.ones(count, 6),
    )


def test_nothing_of_the_host_is_changed(two_embeddings_folder, tmp_path):
    """The count works on tensors without numbers: none may be left in what the host remembers."""
    run = make_run(two_embeddings_folder)
    losses = []
    for counted in (False, True):
        host, events = make_host("sd1"), []
        before = weights(host)
        if counted:
            count_memory(compiled(run), host)
            assert weights(host) == before
        ended = train(run, host, output_folder=tmp_path / str(counted), listener=events.append)
        assert ended.reason == "finished", ended.message
        losses.append([event.losses for event in events if isinstance(event, StepDone)])
    assert losses[0] == losses[1]


def weights(host):
    return [
        (hashlib.sha256(tensor.detach().numpy().tobytes()).hexdigest(), tensor.requires_grad, tensor.grad is None)
        for model in host.models()
        for tensor in model.parameters()
    ]


def test_what_lasts_is_exact(two_embeddings_folder, tmp_path, monkeypatch):
    run = make_run(two_embeddings_folder, ema_decay=0.9)
    host, events, trained = make_host("sd1"), [], []
    init = Trainable.__init__

    def remembered(self, *arguments, **settings):
        init(self, *arguments, **settings)
        trained.append(self)

    monkeypatch.setattr(Trainable, "__init__", remembered)
    train(run, host, output_folder=tmp_path, listener=events.append)
    parts = count_memory(compiled(run), host).moment("a step").parts
    (one,) = trained
    started = next(event for event in events if isinstance(event, RunStarted))
    assert parts["network"] + parts["embeddings"] == parts["ema"] == 4 * started.trained_parameters
    assert parts["optimizer"] == one.optimizer_bytes > 0
    unet, text = host.modules()["unet"], host.modules()["text"]
    assert (parts["unet"], parts["text"]) == tuple(
        sum(t.numel() * t.element_size() for m in models for t in (*m.parameters(), *m.buffers()))
        for models in (unet, text)
    )


@pytest.mark.parametrize(("name", "factor"), [("adamw", 2), ("lion", 1)])
def test_optimizer_bytes(name, factor):
    parameters = [torch.zeros(4, 5), torch.zeros(4, 5), torch.zeros(7)]
    assert optimizer_bytes(name, parameters) == pytest.approx(factor * tensor_bytes(parameters), abs=16)


def test_checkpointing_needs_less(two_embeddings_folder):
    host, runs = make_host("sd1"), [make_run(two_embeddings_folder, checkpointing=on) for on in (False, True)]
    plain, checkpointed = (count_memory(compiled(run), host).moment("a step") for run in runs)
    assert passing(checkpointed) < 0.6 * passing(plain)


class FarAway(OffloadedModel):
    """Being away is being of another type, since a CPU has no other device to move to."""

    @contextlib.contextmanager
    def away(self, model):
        self.model = model.to(torch.float64)
        try:
            yield
        finally:
            model.to(torch.float32)

    @contextlib.contextmanager
    def here(self):
        first, self._users = self._users == 0, self._users + 1
        try:
            yield self.model.to(torch.float32) if first else None
        finally:
            self._users -= 1
            if first:
                self.model.to(torch.float64)


def test_an_autoencoder_that_comes_for_the_count_keeps_its_numbers(two_embeddings_folder):
    """On a GPU it is away during a session: it must not be moved while tensors have no numbers."""
    host, run = make_host("sd1"), make_run(two_embeddings_folder)
    host.codec.offloaded = FarAway()
    run = replace(run, saving=replace(run.saving, sample_every_steps=1))
    before = weights(host)
    count = count_memory(compiled(run), host)
    assert weights(host) == before
    assert passing(count.moment("encoding pictures")) > 0 < passing(count.moment("sampling"))


def test_previews_and_class_pictures_count(two_embeddings_folder):
    host, run = make_host("sd1"), make_run(two_embeddings_folder)
    run = replace(run, saving=replace(run.saving, sample_every_steps=1))
    count = count_memory(compiled(run), host)
    step, drawing = (count.moment(name).parts for name in ("a step", "sampling"))
    adapted = {layer.name: layer.module.weight for layer in host.layers() if layer.part == "te"}
    unet = [layer.module.weight for layer in host.layers() if "attn" in layer.name or "_ff_" in layer.name]
    assert drawing["network"] == 2 * step["network"], "as it is trained, and read from the file"
    assert drawing["aside"] == tensor_bytes([*adapted.values(), *unet])
    assert "aside" not in count_memory(compiled(run), host, as_gpu=True).moment("sampling").parts
    assert count.largest.total_bytes == count.total_bytes == max(moment.total_bytes for moment in count.moments)
    assert all(set(moment.parts) <= set(PURPOSES) and "vae" in moment.parts for moment in count.moments)


def test_sdxls_autoencoder_in_half_precision_is_counted_as_overflowing(two_embeddings_folder):
    """Encoding and drawing once more in fp32, beside its weights in both types."""
    run = make_run(two_embeddings_folder)
    run = replace(run, saving=replace(run.saving, sample_every_steps=1))
    host = make_host("sdxl", torch.float16)
    halved = count_memory(compiled(run), host, as_gpu=True)
    host.codec.vae.float()
    full = count_memory(compiled(run), host, as_gpu=True)
    for name in ("encoding pictures", "sampling"):
        again, plain = halved.moment(name).parts, full.moment(name).parts
        assert again["vae"] == plain["vae"] / 2
        expected = plain["working"] + again["vae"]
        assert again["working"] == pytest.approx(expected, rel=0.1), "twice half of fp32's"


def test_as_on_a_gpu_the_autoencoder_is_away_from_steps_and_cuda_has_its_share(two_embeddings_folder):
    host, run = make_host("sdxl", torch.float16), make_run(two_embeddings_folder)
    plain, gpu = (count_memory(compiled(run), host, as_gpu=as_gpu) for as_gpu in (False, True))
    step, encoding = gpu.moment("a step").parts, gpu.moment("encoding pictures").parts
    assert "vae" not in step and encoding["vae"] == plain.moment("a step").parts["vae"]
    assert step["context"] == encoding["context"] == CONTEXT_BYTES
    assert step["kept_unet"] == pytest.approx(plain.moment("a step").parts["kept_unet"], rel=0.01)
