"""txt2img: prompts, extra networks, conditionings with their caches, Euler, pictures, infotexts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from modules import (
    devices,
    extra_networks,
    images,
    lowvram,
    prompt_parser,
    sd_hijack,
    sd_models,
    sd_unet,
    shared,
)
from modules.shared import opts, state
from PIL import Image
from torch import Tensor

SAMPLERS = {"Euler": "Euler"}


@dataclass(repr=False)
class StableDiffusionProcessing:
    sd_model: Any = None
    outpath_samples: str | None = None
    outpath_grids: str | None = None
    prompt: Any = ""
    negative_prompt: Any = ""
    styles: list[str] | None = None
    seed: Any = -1
    subseed: Any = -1
    subseed_strength: float = 0
    sampler_name: str | None = None
    batch_size: int = 1
    n_iter: int = 1
    steps: int = 50
    cfg_scale: float = 7.0
    width: int = 512
    height: int = 512
    restore_faces: bool | None = None
    tiling: bool | None = None
    do_not_save_samples: bool = False
    do_not_save_grid: bool = False
    extra_generation_params: dict[str, Any] | None = None
    do_not_reload_embeddings: bool = False
    override_settings: dict[str, Any] | None = None
    disable_extra_networks: bool = False

    scripts: Any = field(default=None, init=False)
    is_hr_pass: bool = field(default=False, init=False)
    all_prompts: Any = field(default=None, init=False)
    all_negative_prompts: Any = field(default=None, init=False)
    all_seeds: Any = field(default=None, init=False)
    iteration: int = field(default=0, init=False)
    main_prompt: Any = field(default=None, init=False)
    prompts: Any = field(default=None, init=False)
    negative_prompts: Any = field(default=None, init=False)
    seeds: Any = field(default=None, init=False)
    extra_network_data: Any = field(default=None, init=False)
    c: Any = field(default=None, init=False)
    uc: Any = field(default=None, init=False)

    # of the class: the next picture begins with what the last one left
    cached_uc = [None, None]  # noqa: RUF012
    cached_c = [None, None]  # noqa: RUF012

    def __post_init__(self) -> None:
        self.comments: dict[str, int] = {}
        self.styles = self.styles or []
        self.extra_generation_params = self.extra_generation_params or {}
        self.override_settings = self.override_settings or {}
        self.cached_uc = StableDiffusionProcessing.cached_uc
        self.cached_c = StableDiffusionProcessing.cached_c

    def comment(self, text: str) -> None:
        self.comments[text] = 1

    def close(self) -> None:
        self.c = self.uc = None
        if not opts.persistent_cond_cache:
            StableDiffusionProcessing.cached_c = [None, None]
            StableDiffusionProcessing.cached_uc = [None, None]

    def get_token_merging_ratio(self, for_hr: bool = False) -> float:
        return opts.token_merging_ratio

    def setup_prompts(self) -> None:
        if isinstance(self.prompt, list):
            self.all_prompts = self.prompt
        elif isinstance(self.negative_prompt, list):
            self.all_prompts = [self.prompt] * len(self.negative_prompt)
        else:
            self.all_prompts = self.batch_size * self.n_iter * [self.prompt]
        negative = self.negative_prompt
        self.all_negative_prompts = negative if isinstance(negative, list) else [negative] * len(self.all_prompts)
        if len(self.all_prompts) != len(self.all_negative_prompts):
            raise RuntimeError("Received a different number of prompts and negative prompts")
        styles = shared.prompt_styles
        self.all_prompts = [styles.apply_styles_to_prompt(x, self.styles) for x in self.all_prompts]
        self.all_negative_prompts = [
            styles.apply_negative_styles_to_prompt(x, self.styles) for x in self.all_negative_prompts
        ]
        self.main_prompt = self.all_prompts[0]

    def cached_params(
        self,
        required_prompts: Any,
        steps: int,
        extra_network_data: Any,
        hires_steps: int | None = None,
        use_old_scheduling: bool = False,
    ) -> tuple[Any, ...]:
        """What a conditioning depends on; of the extra networks, how their tags are written."""
        return (
            required_prompts,
            steps,
            hires_steps,
            use_old_scheduling,
            opts.CLIP_stop_at_last_layers,
            shared.sd_model.sd_checkpoint_info,
            extra_network_data,
            opts.sdxl_crop_left,
            opts.sdxl_crop_top,
            self.width,
            self.height,
            opts.fp8_storage,
            opts.cache_fp16_weight,
            opts.emphasis,
        )

    def get_conds_with_caching(
        self,
        function: Callable[..., Any],
        required_prompts: Any,
        steps: int,
        caches: list[list[Any]],
        extra_network_data: Any,
        hires_steps: int | None = None,
    ) -> Any:
        key = self.cached_params(
            required_prompts, steps, extra_network_data, hires_steps, shared.opts.use_old_scheduling
        )
        for cache in caches:
            if cache[0] is not None and key == cache[0]:
                return cache[1]
        with devices.autocast():
            caches[0][1] = function(
                shared.sd_model, required_prompts, steps, hires_steps, shared.opts.use_old_scheduling
            )
        caches[0][0] = key
        return caches[0][1]

    def setup_conds(self) -> None:
        size = {"width": self.width, "height": self.height}
        prompts = prompt_parser.SdConditioning(self.prompts, **size)
        negative = prompt_parser.SdConditioning(self.negative_prompts, is_negative_prompt=True, **size)
        parser = prompt_parser
        self.firstpass_steps = self.steps
        self.uc = self.get_conds_with_caching(
            parser.get_learned_conditioning, negative, self.steps, [self.cached_uc], self.extra_network_data
        )
        self.c = self.get_conds_with_caching(
            parser.get_multicond_learned_conditioning, prompts, self.steps, [self.cached_c], self.extra_network_data
        )

    def parse_extra_network_prompts(self) -> None:
        self.prompts, self.extra_network_data = extra_networks.parse_prompts(self.prompts)

    def init(self) -> None: ...

    def sample(self, noise: Tensor) -> Tensor:
        raise NotImplementedError


@dataclass(repr=False)
class StableDiffusionProcessingTxt2Img(StableDiffusionProcessing):
    """Of the second pass ("Hires. fix") the fake has the prompts and their conditionings, not the picture."""

    enable_hr: bool = False
    hr_prompt: Any = ""
    hr_negative_prompt: Any = ""

    hr_checkpoint_info: Any = field(default=None, init=False)
    hr_c: Any = field(default=None, init=False)
    hr_uc: Any = field(default=None, init=False)
    all_hr_prompts: Any = field(default=None, init=False)
    all_hr_negative_prompts: Any = field(default=None, init=False)
    hr_prompts: Any = field(default=None, init=False)
    hr_negative_prompts: Any = field(default=None, init=False)
    hr_extra_network_data: Any = field(default=None, init=False)

    cached_hr_uc = [None, None]  # noqa: RUF012
    cached_hr_c = [None, None]  # noqa: RUF012

    def __post_init__(self) -> None:
        super().__post_init__()
        self.cached_hr_uc = StableDiffusionProcessingTxt2Img.cached_hr_uc
        self.cached_hr_c = StableDiffusionProcessingTxt2Img.cached_hr_c

    def setup_prompts(self) -> None:
        super().setup_prompts()
        if self.enable_hr:
            count = len(self.all_prompts)
            self.all_hr_prompts = [self.hr_prompt or self.prompt] * count
            self.all_hr_negative_prompts = [self.hr_negative_prompt or self.negative_prompt] * count

    def parse_extra_network_prompts(self) -> None:
        super().parse_extra_network_prompts()
        if self.enable_hr:
            part = slice(self.iteration * self.batch_size, (self.iteration + 1) * self.batch_size)
            self.hr_negative_prompts = self.all_hr_negative_prompts[part]
            self.hr_prompts, self.hr_extra_network_data = extra_networks.parse_prompts(self.all_hr_prompts[part])

    def calculate_hr_conds(self) -> None:
        if self.hr_c is not None:
            return
        size = {"width": 2 * self.width, "height": 2 * self.height}
        prompts = prompt_parser.SdConditioning(self.hr_prompts, **size)
        negative = prompt_parser.SdConditioning(self.hr_negative_prompts, is_negative_prompt=True, **size)
        steps, data = self.firstpass_steps, self.hr_extra_network_data
        self.hr_uc = self.get_conds_with_caching(
            prompt_parser.get_learned_conditioning, negative, steps, [self.cached_hr_uc, self.cached_uc], data, steps
        )
        self.hr_c = self.get_conds_with_caching(
            prompt_parser.get_multicond_learned_conditioning,
            prompts,
            steps,
            [self.cached_hr_c, self.cached_c],
            data,
            steps,
        )

    def setup_conds(self) -> None:
        super().setup_conds()
        self.hr_uc = self.hr_c = None
        if self.enable_hr and self.hr_checkpoint_info is None and shared.opts.hires_fix_use_firstpass_conds:
            self.calculate_hr_conds()

    def sample(self, noise: Tensor) -> Tensor:
        """Euler over the discrete schedule, guided."""
        model = shared.sd_model
        alphas = model.alphas_cumprod.double()
        sigmas = ((1 - alphas) / alphas).sqrt()
        times = torch.linspace(len(sigmas) - 1, 0, self.steps).round().long()
        steps = torch.cat([sigmas[times], sigmas.new_zeros(1)]).float()
        cond, uncond = prompt_parser.stacked(self.c), prompt_parser.stacked(self.uc)
        x = noise * steps[0]
        for number, time in enumerate(times):
            if state.interrupted or state.skipped:
                break
            state.sampling_step = number
            sigma, following = steps[number], steps[number + 1]
            at = time.repeat(len(x)).float()
            scaled = x / (sigma**2 + 1).sqrt()
            found = [_denoised(model, x, scaled, at, sigma, each) for each in (uncond, cond)]
            denoised = found[0] + self.cfg_scale * (found[1] - found[0])
            x = x + (x - denoised) / sigma * (following - sigma)
        if self.enable_hr:
            self.sample_hr_pass()
        return x

    def sample_hr_pass(self) -> None:
        """What stands before its sampling."""
        self.is_hr_pass = True
        if not self.disable_extra_networks:
            extra_networks.activate(self, self.hr_extra_network_data)
        self.calculate_hr_conds()
        if self.scripts is not None:
            self.scripts.before_hr(self)
        self.is_hr_pass = False


def _denoised(model: Any, x: Tensor, scaled: Tensor, at: Tensor, sigma: Tensor, cond: Any) -> Tensor:
    hole = _empty_hole(model, x)
    if isinstance(cond, dict):
        given = {**cond, **({"c_concat": [hole]} if hole is not None else {})}
    else:
        given = {"c_crossattn": [cond], **({"c_concat": [hole]} if hole is not None else {})}
    output = model.apply_model(scaled, at, given)
    if model.parameterization == "v":
        return x / (sigma**2 + 1) - output * sigma / (sigma**2 + 1).sqrt()
    return x - output * sigma


def _empty_hole(model: Any, x: Tensor) -> Tensor | None:
    if model.model.diffusion_model.input_blocks[0][0].weight.shape[1] != 9:
        return None
    return torch.cat([torch.ones_like(x[:, :1]), torch.zeros_like(x)], dim=1)


class Processed:
    def __init__(
        self,
        p: Any,
        images_list: list[Image.Image],
        seed: int,
        info: str,
        index_of_first_image: int,
        infotexts: list[str],
    ) -> None:
        self.images = images_list
        self.prompt = p.prompt if not isinstance(p.prompt, list) else p.prompt[0]
        self.seed = seed
        self.info = info
        self.comments = "".join(f"{comment}\n" for comment in p.comments)
        self.extra_generation_params = p.extra_generation_params
        self.index_of_first_image = index_of_first_image
        self.all_prompts, self.all_seeds = p.all_prompts, p.all_seeds
        self.infotexts = infotexts


def get_fixed_seed(seed: Any) -> Any:
    return random.randrange(4294967294) if seed in (None, "", -1) else seed


def fix_seed(p: Any) -> None:
    p.seed = get_fixed_seed(p.seed)
    p.subseed = get_fixed_seed(p.subseed)


def create_infotext(p: Any, prompts: list[str], seeds: list[int], index: int) -> str:
    """Prompt, negative prompt, and the parameters in a line."""
    parameters = {
        "Steps": p.steps,
        "Sampler": p.sampler_name,
        "CFG scale": p.cfg_scale,
        "Seed": seeds[index],
        "Size": f"{p.width}x{p.height}",
        "Model": shared.sd_model.sd_checkpoint_info.name_for_extra,
        "Clip skip": None if opts.CLIP_stop_at_last_layers <= 1 else opts.CLIP_stop_at_last_layers,
        **p.extra_generation_params,
    }
    line = ", ".join(
        key if key == value else f"{key}: {_quoted(value)}" for key, value in parameters.items() if value is not None
    )
    negative = p.negative_prompts[index]
    return f"{prompts[index]}{f'{chr(10)}Negative prompt: {negative}' if negative else ''}\n{line}".strip()


def _quoted(value: Any) -> str:
    import json

    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(sign in text for sign in ",\n:") else text


def process_images(p: Any) -> Processed:
    if p.scripts is not None:
        p.scripts.before_process(p)
    try:
        sd_models.reload_model_weights()
        sd_models.apply_token_merging(shared.sd_model, p.get_token_merging_ratio())
        return process_images_inner(p)
    finally:
        sd_models.apply_token_merging(shared.sd_model, 0)


def process_images_inner(p: Any) -> Processed:
    seed = get_fixed_seed(p.seed)
    if p.tiling is None:
        p.tiling = opts.tiling
    hijack = sd_hijack.model_hijack
    hijack.apply_circular(p.tiling)
    hijack.clear_comments()
    p.setup_prompts()
    p.all_seeds = seed if isinstance(seed, list) else [int(seed) + number for number in range(len(p.all_prompts))]
    if not p.do_not_reload_embeddings:
        hijack.embedding_db.load_textual_inversion_embeddings()
    if p.scripts is not None:
        p.scripts.process(p)
    infotexts: list[str] = []
    made: list[Image.Image] = []
    with torch.no_grad(), shared.sd_model.ema_scope():
        p.init()
        sd_unet.apply_unet()
        if state.job_count == -1:
            state.job_count = p.n_iter
        for number in range(p.n_iter):
            p.iteration = number
            state.skipped = False
            if state.interrupted or state.stopping_generation:
                break
            sd_models.reload_model_weights()
            part = slice(number * p.batch_size, (number + 1) * p.batch_size)
            p.prompts, p.negative_prompts = p.all_prompts[part], p.all_negative_prompts[part]
            p.seeds = p.all_seeds[part]
            if p.scripts is not None:
                p.scripts.before_process_batch(p, batch_number=number, prompts=p.prompts, seeds=p.seeds)
            if not p.prompts:
                break
            p.parse_extra_network_prompts()
            if not p.disable_extra_networks:
                extra_networks.activate(p, p.extra_network_data)
            if p.scripts is not None:
                p.scripts.process_batch(p, batch_number=number, prompts=p.prompts, seeds=p.seeds)
            p.setup_conds()
            p.extra_generation_params.update(hijack.extra_generation_params)
            for comment in hijack.comments:
                p.comment(comment)
            noise = torch.stack(
                [
                    torch.randn(4, p.height // 8, p.width // 8, generator=torch.Generator().manual_seed(int(each)))
                    for each in p.seeds
                ]
            )
            pixels = shared.sd_model.decode_first_stage(p.sample(noise)).add(1).div(2).clamp(0, 1)
            if lowvram.is_enabled(shared.sd_model):
                lowvram.send_everything_to_cpu()
            state.nextjob()
            p.prompts = p.all_prompts[part]
            for place, picture in enumerate(pixels):
                array = (255.0 * picture.permute(1, 2, 0)).to(torch.uint8).numpy()
                image = Image.fromarray(array)
                text = create_infotext(p, p.prompts, p.seeds, place)
                infotexts.append(text)
                image.info["parameters"] = text
                if opts.samples_save and not p.do_not_save_samples:
                    folder = p.outpath_samples
                    images.save_image(
                        image, folder, "", p.seeds[place], p.prompts[place], opts.samples_format, text, p=p
                    )
                made.append(image)
    first = _add_grid(p, made, infotexts)
    if not p.disable_extra_networks and p.extra_network_data:
        extra_networks.deactivate(p, p.extra_network_data)
    done = Processed(p, made, p.all_seeds[0], infotexts[0] if infotexts else "", first, infotexts)
    if p.scripts is not None:
        p.scripts.postprocess(p, done)
    return done


def _add_grid(p: Any, made: list[Image.Image], infotexts: list[str]) -> int:
    """Where more than one picture was made, all of them as one in front; returns the place of the first picture."""
    if p.do_not_save_grid or not (opts.return_grid or opts.grid_save) or (len(made) < 2 and opts.grid_only_if_multiple):
        return 0
    grid = images.image_grid(made, p.batch_size)
    if opts.grid_save and p.outpath_grids:
        images.save_image(grid, p.outpath_grids, "grid", extension=opts.grid_format, info=infotexts[0], grid=True, p=p)
    if not opts.return_grid:
        return 0
    infotexts.insert(0, infotexts[0])
    made.insert(0, grid)
    return 1
