"""A checkpoint on disk for the tests of this room."""

import pytest


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, tiny_models):
    """The tiny models as a diffusers folder."""
    from diffusers import DDPMScheduler

    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    tiny_models["unet"].save_pretrained(folder / "unet")
    tiny_models["vae"].save_pretrained(folder / "vae")
    tiny_models["text_model"].save_pretrained(folder / "text_encoder")
    tiny_models["tokenizer"].save_pretrained(folder / "tokenizer")
    DDPMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).save_pretrained(
        folder / "scheduler"
    )
    return folder
