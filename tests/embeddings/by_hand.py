"""Text models run without the package: rows of an embedding are written into the table of a copy, at spare tokens."""

from __future__ import annotations

from copy import deepcopy

import torch

from lib_pivotal.standalone.text import StandaloneTextEncoder
from lib_pivotal.standalone.tokenizer import clip_tokenizer
from tests.standalone import tiny_families

START, END = 49406, 49407
SPARE = range(30000, 30075)


def text_encoder(family):
    """A tiny text encoder of a family, and its models."""
    made = tiny_families.make(family)
    models = [model for model in (made.text_model, made.text_model_2) if model is not None]
    second = models[1] if len(models) > 1 else None
    return StandaloneTextEncoder(models[0], clip_tokenizer(), second=second, family=family), models


def words(text):
    """Token ids of a plain text, by the tokenizer itself."""
    return clip_tokenizer()(text, add_special_tokens=False)["input_ids"]


def outputs(family, models, parts, rows=()):
    """What the U-Net reads of one prompt, `(77, width)` a text model, differentiable in `rows`, and pooled or None.

    `parts`: texts, and None where the rows of an embedding stand, which are given a tensor a model.
    """
    ids = [START]
    for part in parts:
        ids += list(SPARE[: len(rows[0])]) if part is None else words(part)
    length = len(ids)
    found, pooled = [], None
    for number, model in enumerate(models):
        openclip = family == "sd2" or number == 1
        full = torch.tensor([ids + [END] + ([0] if openclip else [END]) * (76 - length)])
        run = deepcopy(model)
        table = run.get_input_embeddings()
        if rows:
            weight = torch.nn.functional.embedding(full, table.weight)
            place = full[0] == SPARE[0]
            at = int(place.nonzero()[0])
            weight = torch.cat([weight[:, :at], rows[number][None], weight[:, at + len(rows[number]) :]], dim=1)
            table.register_forward_hook(lambda module, args, out, weight=weight: weight)
        made = run(input_ids=full, output_hidden_states=True)
        inner = getattr(run, "text_model", run)
        if family == "sdxl":
            hidden = made.hidden_states[-2]
            if number == 1:
                pooled = run.text_projection(made.last_hidden_state[0, length])
        else:
            hidden = inner.final_layer_norm(made.hidden_states[-1])
        found.append(hidden[0])
    return found, pooled, length
