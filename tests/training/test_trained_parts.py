"""What is trained, in a line: parameters counted by hand, learning rates with their factors, what is left out."""

import torch

from lib_pivotal.parameter_groups import ParameterGroup
from lib_pivotal.training.events import RunStarted
from lib_pivotal.training.trained_parts import said_of_trained, trained_parts
from tests.training.runs import Recorder, make_run, tensors_of, train


def group(name, part, *shape, lr, factor=1.0):
    return ParameterGroup(name, [torch.zeros(shape)], lr=lr, lr_factor=factor, part=part)


GROUPS = [
    group("word aoi", "embeddings", 2, 8, lr=5e-3),
    group("word hana", "embeddings", 3, 8, lr=5e-3, factor=0.5),
    group("unet", "unet", 10, 100, lr=2e-4),
]


def test_parts_with_their_rates_and_what_is_not_trained():
    said = said_of_trained(trained_parts(GROUPS))
    assert said == (
        "Trains 2 embeddings (40 parameters, LR 0.0025 to 0.005) and the U-Net (1,000 parameters, LR 0.0002); "
        "not the text encoder."
    )


def test_frozen_and_rateless_groups_are_not_trained():
    groups = [*GROUPS[:2], group("unet", "unet", 4, lr=0.0), group("te", "te", 4, lr=1e-5)]
    said = said_of_trained(trained_parts(groups, frozen={"hana"}))
    assert (
        said
        == "Trains 1 embedding (16 parameters, LR 0.005) and the text encoder (4 parameters, LR 1e-05); not the U-Net."
    )
    assert said_of_trained([]) == "Trains nothing; not embeddings, the U-Net or the text encoder."
    both = said_of_trained(trained_parts([*GROUPS, group("te2", "te2", 4, lr=1e-5)]))
    assert "the second text encoder (4" in both and "not" not in both


def test_a_run_says_it_first(two_embeddings_folder, tiny_host, tmp_path):
    recorder = Recorder()
    ended = train(make_run(two_embeddings_folder), tiny_host, output_folder=tmp_path, listener=recorder)
    started = recorder.of(RunStarted)[0]
    sizes = {key: tensor.numel() for key, tensor in tensors_of(ended.bundle).items() if not key.endswith(".alpha")}
    unet = sum(size for key, size in sizes.items() if key.startswith("lora_unet"))
    te = sum(size for key, size in sizes.items() if key.startswith("lora_te"))
    assert f"the U-Net ({unet:,} parameters, LR 0.001)" in started.said
    assert f"the text encoder ({te:,} parameters, LR 0.001)" in started.said
    assert started.said.startswith("Trains 2 embeddings (") and "not" not in started.said
