"""The script "LoRA parts": the accordion with the rows, and what has to happen to tags before the web UI reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modules import scripts, shared

from lib_pivotal.ui import parts_rows
from lib_pivotal.webui import catalog, compat, prompt_tags
from lib_pivotal.webui.resolution import say


class LoraParts(scripts.Script):  # type: ignore[misc]
    """Rows for the LoRAs of the prompt. Nothing is passed from the page: the rows write into the prompt itself."""

    create_group = False

    def title(self) -> str:
        """Its name among the scripts."""
        return "LoRA parts"

    def show(self, is_img2img: bool) -> Any:
        """In both tabs, always."""
        return scripts.AlwaysVisible

    def ui(self, is_img2img: bool) -> list[Any]:
        """The accordion; no component of it is an argument."""
        parts_rows.accordion("img2img" if is_img2img else "txt2img")
        return []

    def process(self, p: Any, *_: Any) -> None:
        """Pictures of one batch that name different LoRAs are made one by one (B18)."""
        one_by_one(p)

    def before_process_batch(self, p: Any, *_: Any, batch_number: int = 0, **__: Any) -> None:
        """A text encoder's weight that is named alone is written out, here and in the infotext (B11)."""
        write_out_traps(p, batch_number)

    def process_batch(self, p: Any, *_: Any, **__: Any) -> None:
        """Say what stays from the picture before where extra networks are switched off (B22)."""
        networks = compat.find_lora_networks()
        if p.disable_extra_networks and networks is not None and networks.loaded_networks:
            names = ", ".join(net.name for net in networks.loaded_networks)
            say(f"extra networks are switched off for this picture, so those of the one before stay: {names}")


def one_by_one(p: Any) -> None:
    """Batch size 1 where prompts of one batch name different files and one of these has embeddings.

    The web UI activates the first prompt's tags for all of a batch (modules/extra_networks.py:194-206). Seeds belong
    to pictures, not to batches, so the pictures are the same.
    """
    if p.batch_size < 2 or p.disable_extra_networks or len(getattr(p, "init_images", None) or ()) > 1:
        return
    found = [
        [prompt_tags.TAG.findall(prompt) for prompt in prompts] for prompts in batches(p.all_prompts, p.batch_size)
    ]
    differing = [batch for batch in found if any(other != batch[0] for other in batch)]
    names = {
        prompt_tags.understand(text.split(":")).name for batch in differing for tagged in batch for _, text in tagged
    }
    if any(catalog.brings_embeddings(name) for name in sorted(names)):
        p.batch_size, p.n_iter = 1, len(p.all_prompts)
        say("the prompts of a batch name different LoRAs, of which only the first's would act: made one by one")


def batches(prompts: Sequence[str], size: int) -> list[Sequence[str]]:
    """The prompts in groups of `size`, as the web UI takes them."""
    return [prompts[start : start + size] for start in range(0, len(prompts), size)]


def write_out_traps(p: Any, batch_number: int) -> None:
    """`<lora:x:1:te=0>` becomes `<lora:x:0:1>` where x has embeddings; of other LoRAs it is said what the web UI
    does."""
    start = batch_number * p.batch_size
    written = [p.prompts, getattr(p, "all_hr_prompts", None) if getattr(p, "enable_hr", False) else None]
    prompts = [prompt for texts in written if texts for prompt in texts]
    trapped = {
        tag.name for prompt in prompts for _, tag in prompt_tags.tags_in(prompt) if tag.te_alone and tag.te is not None
    }
    if not trapped:
        return
    ours = frozenset(name for name in trapped if catalog.brings_embeddings(name))
    for name in sorted(trapped - ours):
        say(f"{name}: te=… alone sets the U-Net's weight too; write <lora:{name}:text encoder:U-Net>")
    texts: list[str]
    for texts in (p.prompts, p.all_prompts, getattr(p, "all_hr_prompts", None) or []):
        for number, prompt in enumerate(texts):
            texts[number], changed = prompt_tags.untrapped(prompt, applies=ours)
            for name in changed if texts is p.prompts else ():
                say(f"{name}: te=… was taken for the text encoder alone and written out")
    p.main_prompt = p.all_prompts[0]
    p.prompts[:] = p.all_prompts[start : start + len(p.prompts)]


def with_added_network(prompt: str) -> str:
    """The prompt with the tag of the setting "Add network to prompt", which the web UI adds later, out of reach."""
    added = getattr(shared.opts, "sd_lora", "None")
    networks = compat.find_lora_networks()
    if added == "None" or networks is None or added not in networks.available_networks:
        return prompt
    if any(tag.name == added for _, tag in prompt_tags.tags_in(prompt)):
        return prompt
    return f"{prompt}<lora:{added}:{shared.opts.extra_networks_default_multiplier}>"
