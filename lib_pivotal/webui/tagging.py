"""The web UI's own interrogators as taggers. Their files are looked for first: the web UI would download them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modules import call_queue, deepbooru, devices, lowvram, paths, shared
from PIL import Image

from lib_pivotal.errors import HostError

if TYPE_CHECKING:
    from lib_pivotal.runs.tagging import Tagger

TOKENIZER = "bert-base-uncased"


class DeepBooru:
    """DeepDanbooru: tags, by the web UI's settings for interrogation (threshold, escapes, tags left out)."""

    name = "deepbooru"
    title = "DeepDanbooru: tags"

    def missing(self) -> str:
        """Its one file; see modules/deepbooru.py, `load`."""
        folder = Path(paths.models_path) / "torch_deepdanbooru"
        if deepbooru.model.model is not None or _has(folder, ".pt"):
            return ""
        return (
            f"DeepDanbooru's model is not there: put model-resnet_custom_v3.pt into {folder}. "
            "(Interrogate DeepBooru in img2img downloads it, too.)"
        )

    def __call__(self, picture: Image.Image) -> str:
        """Tags, the likeliest first unless the settings say otherwise, never with numbers."""
        with call_queue.queue_lock:
            with _loading("DeepDanbooru"):
                deepbooru.model.start()
            try:
                return str(deepbooru.model.tag_multi(picture, force_disable_ranks=True))
            finally:
                deepbooru.model.stop()


class Blip:
    """BLIP: a sentence. The rest of "Interrogate CLIP" (artists, flavours) describes prompts, not pictures."""

    name = "blip"
    title = "BLIP: a sentence"

    def missing(self) -> str:
        """Its file, its code and its tokenizer; see modules/interrogate.py, `load_blip_model`."""
        folder = Path(paths.models_path) / "BLIP"
        if shared.interrogator.blip_model is not None:
            return ""
        if "BLIP" not in paths.paths:
            return "BLIP's code is not there: start the web UI with its own launcher, which fetches repositories/BLIP."
        if not _has(folder, ".pth"):
            return (
                f"BLIP's model is not there: put model_base_caption_capfilt_large.pth into {folder}. "
                "(Interrogate CLIP in img2img downloads it, too.)"
            )
        if not _tokenizer_is_there():
            return f"BLIP's tokenizer {TOKENIZER} is not in Hugging Face's cache: Interrogate CLIP in img2img adds it."
        return ""

    def __call__(self, picture: Image.Image) -> str:
        """One sentence, as long as the settings say."""
        models = shared.interrogator
        with call_queue.queue_lock:
            lowvram.send_everything_to_cpu()
            devices.torch_gc()
            with _loading("BLIP"):
                if models.blip_model is None:
                    models.blip_model = models.load_blip_model()
                    if not shared.cmd_opts.no_half and not models.running_on_cpu:
                        models.blip_model = models.blip_model.half()
                models.blip_model = models.blip_model.to(devices.device_interrogate)
            try:
                with _precision(models):
                    return str(models.generate_caption(picture))
            finally:
                models.send_blip_to_ram()
                devices.torch_gc()


def taggers() -> tuple[Tagger, ...]:
    """All that there are, whether or not their files are."""
    return (DeepBooru(), Blip())


def _has(folder: Path, ending: str) -> bool:
    """Whether `modelloader.load_models` would find a file there, and so download none."""
    return any(path.is_file() for path in folder.rglob(f"*{ending}"))


def _tokenizer_is_there() -> bool:
    from transformers import BertTokenizer

    try:
        BertTokenizer.from_pretrained(TOKENIZER, local_files_only=True)
    except Exception:  # which one depends on transformers' version
        return False
    return True


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """The web UI answers a file that it refuses to load with None, on which its own code then stumbles."""
    try:
        yield
    except Exception as error:
        if name == "DeepDanbooru":
            deepbooru.model.model = None  # an empty one would count as loaded
        text = f"{name}'s model cannot be loaded ({type(error).__name__}: {error}). The web UI's log says why; "
        raise HostError(f"{text}a damaged or unsafe file is the usual reason: download it again.") from error


@contextmanager
def _precision(models: Any) -> Iterator[None]:
    """`generate_caption` reads the precision that loading CLIP, which is not needed, would have noted."""
    before = models.__dict__.get("dtype")
    models.dtype = next(models.blip_model.parameters()).dtype
    try:
        yield
    finally:
        if before is None:
            del models.dtype
        else:
            models.dtype = before
