"""More routes for tests: what the host of a run says, beside what the web UI's own code says of the same."""

import base64
import io
from contextlib import contextmanager

import torch
from fastapi import Body
from modules import call_queue, devices, processing, prompt_parser, script_callbacks, sd_models, shared
from torch.utils._python_dispatch import TorchDispatchMode


def tolerance(ours, theirs):
    """Largest difference, and whether there is none at all."""
    return {"largest": float((ours - theirs).abs().max()), "same": torch.equal(ours, theirs)}


def drawn_embeddings(host, names):
    """Two random vectors a tower for each name; leaf tensors."""
    embeddings = {}
    for number, name in enumerate(names):
        generator = torch.Generator().manual_seed(number)
        towers = [0.3 * torch.randn(2, width, generator=generator) for width in host.text.widths]
        embeddings[name] = tuple(tower.requires_grad_() for tower in towers)
    return embeddings


def web_ui_conditioning(prompt, embeddings, width, height):
    """What txt2img conditions on: context, and SDXL's vector."""
    from lib_pivotal.webui.text import make_embedding, registered

    texts = prompt_parser.SdConditioning([prompt], width=width, height=height)
    with torch.no_grad(), registered(shared.sd_model, {n: make_embedding(n, t) for n, t in embeddings.items()}):
        found = shared.sd_model.get_learned_conditioning(texts)
    return (found["crossattn"], found["vector"]) if isinstance(found, dict) else (found, None)


@contextmanager
def recorded_rows():
    """Inside, a list that fills: of each call of a text encoder's transformer the encoder's number and the rows."""
    from lib_pivotal.webui.families import text_towers

    found = []
    towers = text_towers(shared.sd_model)
    for number, tower in enumerate(towers):

        def counted(tokens, *, number=number, original=tower.encode_with_transformers):
            found.append([number, len(tokens)])
            return original(tokens)

        tower.encode_with_transformers = counted
    try:
        yield found
    finally:
        for tower in towers:
            del tower.encode_with_transformers


def conditioning(prompts: list = Body(...), names: list = Body(...)):  # noqa: B008
    """By prompt: ours against the web UI's, alone and in a batch; and which words got a gradient, and by which way."""
    from dataclasses import replace

    from lib_pivotal.ports import SessionRequest
    from lib_pivotal.webui.model import WebUIHost, _vector

    width, height = 96, 64
    host = WebUIHost()
    embeddings = drawn_embeddings(host, names)
    sizes = torch.tensor([[height, width, shared.opts.sdxl_crop_top, shared.opts.sdxl_crop_left, height, width]])
    answer = {"prompts": {}, "widths": host.text.widths}
    with call_queue.queue_lock:
        theirs = {}
        for prompt in prompts:
            with recorded_rows() as rows:
                theirs[prompt] = (*web_ui_conditioning(prompt, embeddings, width, height), rows)
        with host.session(SessionRequest()):
            batch = host.text.encode(prompts, embeddings)
            for number, prompt in enumerate(prompts):
                with recorded_rows() as rows:
                    ours = replace(host.text.encode([prompt], embeddings), sizes=sizes.float())
                context, vector, their_rows = theirs[prompt]
                length = context.shape[1]
                found = {
                    "alone": tolerance(ours.context, context),
                    "batch": tolerance(batch.context[number : number + 1, :length], context),
                    "gradients": gradients(ours.context, embeddings),
                    "rows": {"ours": rows, "theirs": their_rows},
                }
                if vector is not None:
                    found["vector"] = tolerance(_vector(shared.sd_model, ours), vector)
                    found["pooled_gradients"] = gradients(ours.pooled, embeddings)
                answer["prompts"][prompt] = found
    return answer


def gradients(output, embeddings):
    """Which towers of which words the output depends on."""
    tensors = [tower for towers in embeddings.values() for tower in towers]
    if not output.requires_grad:
        return [False] * len(tensors)
    found = torch.autograd.grad(output.square().sum(), tensors, retain_graph=True, allow_unused=True)
    return [grad is not None and bool(grad.abs().sum() > 0) for grad in found]


def pictures(path: str = Body(...), prompt: str = Body(...)):
    """A bundle's picture by the host of a run: with the network written into the weights, and by its hooks."""
    from pathlib import Path

    from lib_pivotal.bundle.reader import read_bundle, require
    from lib_pivotal.evaluation.loading import load_on_host
    from lib_pivotal.ports import SampleRequest, SessionRequest
    from lib_pivotal.webui.model import WebUIHost

    host = WebUIHost()
    request = SampleRequest(prompt, width_px=64, height_px=64, steps=12, cfg_scale=4.0, seed=0)
    with call_queue.queue_lock, host.session(SessionRequest()):
        embeddings, network = load_on_host(host, require(read_bundle(Path(path))))
        with network.merged():
            merged = host.sample([request], embeddings)[0]
        with network.attach():
            hooked = host.sample([request], embeddings)[0]
        return {
            "merged": encoded(merged),
            "hooked": encoded(hooked),
            "layers": len(network.layer_names),
            "unmatched": list(network.unmatched),
        }


class Products(TorchDispatchMode):
    """Inside, every product and convolution, in order: the operation and the shapes of what it is given."""

    KINDS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "convolution", "_scaled_dot_product")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.__name__.split(".")[0]
        if name.startswith(self.KINDS):
            self.found.append(f"{name} {[tuple(arg.shape) for arg in args if isinstance(arg, torch.Tensor)]}")
        return func(*args, **(kwargs or {}))


def products(path: str = Body(...), name: str = Body(...), prompt: str = Body(...)):
    """What a picture with a bundle is computed by, by the host of a run and by txt2img: see `Products`."""
    from pathlib import Path

    from lib_pivotal.bundle.reader import read_bundle, require
    from lib_pivotal.evaluation.loading import load_on_host
    from lib_pivotal.ports import SampleRequest, SessionRequest
    from lib_pivotal.webui.model import WebUIHost

    def txt2img():
        text, size = f"<lora:{name}:1>{prompt}", {"width": 64, "height": 64}
        p = processing.StableDiffusionProcessingTxt2Img(
            sd_model=shared.sd_model, prompt=text, steps=2, cfg_scale=4, seed=0, **size
        )
        p.sampler_name, p.do_not_save_samples, p.do_not_save_grid = "Euler", True, True
        p.cached_c, p.cached_uc = [None, None], [None, None]
        processing.process_images(p)

    host = WebUIHost()
    request = SampleRequest(prompt, width_px=64, height_px=64, steps=2, cfg_scale=4.0, seed=0)
    with call_queue.queue_lock:
        with host.session(SessionRequest()):
            embeddings, network = load_on_host(host, require(read_bundle(Path(path))))
            with network.merged(), Products() as ours:
                host.sample([request], embeddings)
        txt2img()  # now the network is merged into the weights
        with Products() as theirs:
            txt2img()
    return {"ours": ours.found, "theirs": theirs.found}


def encoded(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def denoised(timestep: int = Body(500), prompt: str = Body("a face")):
    """The U-Net's raw prediction through the port, and through the web UI's `apply_model`."""
    from lib_pivotal.ports import SessionRequest
    from lib_pivotal.webui.families import is_inpainting
    from lib_pivotal.webui.model import WebUIHost

    host = WebUIHost()
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 8, 12, generator=generator)
    concat = torch.randn(1, 5, 8, 12, generator=generator) if is_inpainting(shared.sd_model) else None
    timesteps = torch.tensor([timestep])
    with call_queue.queue_lock, torch.no_grad():
        context, vector = web_ui_conditioning(prompt, {}, 96, 64)
        cond = {"crossattn": context, "vector": vector} if vector is not None else {"c_crossattn": [context]}
        cond |= {"c_concat": [concat]} if concat is not None else {}
        theirs = shared.sd_model.apply_model(latents, timesteps, cond)
        with host.session(SessionRequest()):
            from dataclasses import replace

            sizes = [[64, 96, shared.opts.sdxl_crop_top, shared.opts.sdxl_crop_left, 64, 96]]
            ours = replace(host.text.encode([prompt], {}), sizes=torch.tensor(sizes).float(), concat=concat)
            with host.borrowing.generating():  # the web UI's own kind of attention
                return tolerance(host.denoiser(latents, timesteps, ours), theirs)


def codec():
    """Pictures through the autoencoder: the port's mean and spread against draws of the web UI's own code."""
    from lib_pivotal.ports import SessionRequest
    from lib_pivotal.webui.model import WebUIHost

    host = WebUIHost()
    model = shared.sd_model
    pixels = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with call_queue.queue_lock, torch.no_grad(), host.session(SessionRequest()):
        found = host.codec.encode(pixels)
        torch.manual_seed(5)
        theirs = model.get_first_stage_encoding(model.encode_first_stage(pixels))
        torch.manual_seed(5)
        ours = found.mean + found.std * torch.randn(found.mean.shape)
        decoded = tolerance(host.codec.decode(theirs), model.decode_first_stage(theirs).clamp(-1, 1))
        return {"encoded": tolerance(ours, theirs), "decoded": decoded}


def facts():
    """What the host says of the checkpoint."""
    from lib_pivotal.webui.model import WebUIHost

    host = WebUIHost()
    info = host.info
    return {
        "family": info.family,
        "v": info.v_prediction,
        "inpainting": info.inpainting,
        "alphas": host.alphas_cumprod.tolist(),
        "web_ui": shared.sd_model.alphas_cumprod.float().tolist(),
        "layers": sorted(layer.name for layer in host.layers()),
        "widths": host.text.widths,
        "dtype": str(next(shared.sd_model.model.parameters()).dtype),
        "vae_dtype": str(next(shared.sd_model.first_stage_model.parameters()).dtype),
        "upcast": devices.unet_needs_upcast,
        "title": sd_models.model_data.sd_model.sd_checkpoint_info.title,
    }


def overflow(power: int):
    """The autoencoder's first convolution times a power of two: its output no longer fits half precision."""
    with torch.no_grad():
        shared.sd_model.first_stage_model.encoder.conv_in.weight.mul_(2.0**power)
    return power


def add_routes(demo, app):
    for function in (conditioning, pictures, products, denoised):
        app.add_api_route(f"/probe/{function.__name__}", function, methods=["POST"])
    app.add_api_route("/probe/overflow/{power}", overflow, methods=["GET"])
    app.add_api_route("/probe/codec", codec, methods=["GET"])
    app.add_api_route("/probe/facts", facts, methods=["GET"])


script_callbacks.on_app_started(add_routes)
