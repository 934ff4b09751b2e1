"""An extension for the tests alone: what the model is like, and faults on demand, inside a real web UI."""

import errno
import hashlib

import torch
from fastapi import Body
from modules import script_callbacks, sd_hijack, shared


def state_of_model():
    """Everything that a run must put back, as values that can be compared."""
    model = shared.sd_model
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        digest.update(f"{name} {tensor.dtype} {tensor.device} {tensor.requires_grad} {tensor.grad is None}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    hooks = [
        name
        for name, module in model.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    ]
    import ldm.modules.attention
    import sgm.modules.attention

    return {
        "weights": digest.hexdigest(),
        "training": [name for name, module in model.named_modules() if module.training],
        "hooks": hooks,
        "attention": [
            cls.CrossAttention.forward.__qualname__ for cls in (ldm.modules.attention, sgm.modules.attention)
        ],
        "clip_skip": shared.opts.CLIP_stop_at_last_layers,
        "embeddings": sorted(sd_hijack.model_hijack.embedding_db.word_embeddings),
        "hypernetworks": len(shared.loaded_hypernetworks),
        "tiling": sd_hijack.model_hijack.circular_enabled,
        "job": shared.state.job,
        "checkpoint": shared.opts.sd_model_checkpoint,
        "grad": torch.is_grad_enabled(),
    }


class Faults:
    """One fault at a time; `mend` takes it away."""

    def __init__(self):
        self.undo = None

    def mend(self):
        if self.undo is not None:
            owner, name, value = self.undo
            setattr(owner, name, value)
            self.undo = None

    def arm(self, kind, step):
        from lib_pivotal.training import outputs
        from lib_pivotal.training.step import MicroStep

        self.mend()
        if kind == "disk":
            original = outputs.publish

            def full(source, target):
                raise OSError(errno.ENOSPC, "No space left on device", str(target))

            self.undo = (outputs, "publish", original)
            outputs.publish = full
            return
        original = MicroStep.losses

        def losses(micro_step, batch, embeddings, *, seeds, **rest):
            found = original(micro_step, batch, embeddings, seeds=seeds, **rest)
            if seeds[1] + 1 == step and kind == "exception":
                raise RuntimeError("a fault for the test")
            return found * float("nan") if seeds[1] + 1 == step and kind == "nan" else found

        self.undo = (MicroStep, "losses", original)
        MicroStep.losses = losses


def add_routes(demo, app):
    faults = Faults()

    def fault(kind: str = Body(...), step: int = Body(0)):
        faults.mend() if kind == "none" else faults.arm(kind, step)
        return kind

    app.add_api_route("/probe/model", state_of_model, methods=["GET"])
    app.add_api_route("/probe/fault", fault, methods=["POST"])


script_callbacks.on_app_started(add_routes)
