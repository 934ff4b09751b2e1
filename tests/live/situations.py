"""Situations in which the stock web UI v1.10.1 loses or mistakes the words of a bundle, one function each.

A function makes pictures and asserts what a user expects. `test_names.py` runs each twice: it must fail in the stock
web UI and pass with the extension, and that for a checkpoint of SD1, SD2 and SDXL: a word is one tensor a text
encoder. The letters are those of docs/names.md.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.live.material import SPELLINGS, Material, Towers, spelled

DEFAULTS = {"pivotal_name_priority": "the bundle in the prompt"}
"""Settings that a web UI without a page does not list."""

COUNTER = itertools.count()
"""For all test modules of a session: they share a web UI, and its folders."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(eq=False)
class Situation:
    """A running web UI and what is needed to set up files for it."""

    webui: Any
    material: Material
    checkpoint: str = "avatars"
    counter: Any = field(default_factory=lambda: COUNTER)

    def fresh(self, stem: str = "w") -> str:
        """A name that nothing else has, of letters only."""
        number = next(self.counter)
        tail = "".join(LETTERS[int(digit)] for digit in f"{number:03d}")
        return f"{stem}q{tail}z"

    def vectors(self, seed: int, rows: int = 2) -> Towers:
        drawn = self.material.vectors(rows, generator=torch.Generator().manual_seed(seed))
        return tuple(tower.half() for tower in drawn)

    def bundle(
        self,
        embeddings: Mapping[str, Towers],
        *,
        name: str = "",
        parts: tuple[str, ...] = (),
        extra: Mapping[str, Tensor] | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> str:
        """Write a LoRA file with these words, spelled as the web UI expects; returns the name for its tag.

        Of the parts `te` is every text encoder.
        """
        name = name or self.fresh("file")
        tensors = spelled(embeddings)
        tensors |= self.material.network(*self.material.whole(parts)) if parts else {}
        tensors |= dict(extra or {})
        path = self.webui.lora_folder / f"{name}.safetensors"
        temporary = path.with_suffix(".tmp")
        save_file({key: value.contiguous() for key, value in tensors.items()}, str(temporary), dict(metadata or {}))
        temporary.replace(path)
        self.webui.call("/sdapi/v1/refresh-loras", {})
        return name

    def embedding(self, towers: Towers, name: str = "") -> str:
        """A file in the embeddings folder; the web UI looks there again when the folder's time changes."""
        name = name or self.fresh("ref")
        keys = ("emb_params",) if len(towers) == 1 else SPELLINGS[len(towers)]
        tensors = {key: tower.contiguous() for key, tower in zip(keys, towers, strict=True)}
        save_file(tensors, str(self.webui.embeddings_folder / f"{name}.safetensors"))
        later = time.time() + 2 + next(self.counter)
        os.utime(self.webui.embeddings_folder, (later, later))
        return name

    def pixels(self, prompt: str, *, options: Mapping[str, Any] | None = None, **settings: Any) -> bytes:
        """A picture, made under these options. (v1.10.1 forgets to restore an override that a request brings.)"""
        with self.options(options or {}):
            return self.webui.txt2img(prompt, **settings).image.tobytes()

    @contextlib.contextmanager
    def options(self, values: Mapping[str, Any]) -> Iterator[None]:
        before = self.webui.call("/sdapi/v1/options") if values else {}
        if values:
            self.webui.call("/sdapi/v1/options", dict(values))
        try:
            yield
        finally:
            if values:
                self.webui.call("/sdapi/v1/options", {key: before.get(key, DEFAULTS.get(key)) for key in values})

    def said(self, prompt: str, **settings: Any) -> str:
        """What the log says while a picture is made: what stands under the picture is logged too."""
        before = len(self.webui.log_text())
        self.webui.txt2img(prompt, **settings)
        return self.webui.log_text()[before:]


def b1_a_name_in_the_folder_too(s: Situation) -> None:
    """The bundle in the prompt wins, the folder's word is there again afterwards, and both can be named."""
    ours, theirs, name = s.vectors(1), s.vectors(2), s.fresh()
    s.embedding(theirs, name)
    ours_ref, theirs_ref = s.embedding(ours), s.embedding(theirs)
    file = s.bundle({name: ours})
    assert s.pixels(f"<lora:{file}:1> a {name} face") == s.pixels(f"a {ours_ref} face")
    assert s.pixels(f"a {name} face") == s.pixels(f"a {theirs_ref} face")
    assert s.pixels(f"<lora:{file}:1> a {name}@embeddings face") == s.pixels(f"a {theirs_ref} face")


def b1_the_folder_gains_the_name_later(s: Situation) -> None:
    """A folder embedding that comes while the bundle is in use is not deleted with it."""
    ours, theirs, name = s.vectors(3), s.vectors(4), s.fresh()
    file = s.bundle({name: ours})
    s.pixels(f"<lora:{file}:1> a {name} face")
    s.embedding(theirs, name)
    reference = s.embedding(theirs)
    s.pixels(f"<lora:{file}:1> a {name} face")
    assert s.pixels(f"a {name} face") == s.pixels(f"a {reference} face")


def b2_two_bundles_with_one_name(s: Situation) -> None:
    """The first in the prompt wins, whatever was made before; the other has its qualified name."""
    one, two, name = s.vectors(5), s.vectors(6), s.fresh()
    refs = s.embedding(one), s.embedding(two)
    files = s.bundle({name: one}), s.bundle({name: two})
    expected = [s.pixels(f"a {ref} face") for ref in refs]
    for order in ((0, 1), (1, 0), (0, 1)):
        tags = "".join(f"<lora:{files[i]}:1>" for i in order)
        assert s.pixels(f"{tags} a {name} face") == expected[order[0]]
        assert s.pixels(f"{tags} a {name}@{files[order[1]]} face") == expected[order[1]]


def b3_a_collision_in_case_only(s: Situation) -> None:
    """`Foo` in the folder does not hide `foo` in the bundle."""
    ours, theirs, name = s.vectors(7), s.vectors(8), s.fresh()
    s.embedding(theirs, name.capitalize())
    reference = s.embedding(ours)
    file = s.bundle({name: ours})
    s.pixels("a face")
    assert s.pixels(f"<lora:{file}:1> a {name} face") == s.pixels(f"a {reference} face")


def b4_one_embedding_cannot_be_read(s: Situation) -> None:
    """A word with two kinds of tensors costs neither the other word nor the network, and it is said."""
    good, name, odd = s.vectors(9), s.fresh(), s.fresh("odd")
    reference = s.embedding(good)
    extra = {f"bundle_emb.{odd}.one": s.vectors(10)[0], f"bundle_emb.{odd}.two": s.vectors(11)[0]}
    file = s.bundle({name: good}, parts=("unet",), extra=extra)
    plain = s.bundle({}, parts=("unet",))
    said = s.said(f"<lora:{file}:1> a {name} face")
    assert s.pixels(f"<lora:{file}:1> a {name} face") == s.pixels(f"<lora:{plain}:1> a {reference} face")
    assert odd in said
    assert "several terms" in said


def b4_output_embeddings_of_onetrainer(s: Situation) -> None:
    """`clip_l` beside `clip_l_out`, as OneTrainer writes since 2025; SDXL's `clip_g` likewise."""
    good, name = s.vectors(12), s.fresh()
    reference = s.embedding(good)
    keys = ("clip_l", "clip_g")[: len(good)]
    written = {f"bundle_emb.{name}.{key}": tower for key, tower in zip(keys, good, strict=True)}
    written |= {f"bundle_emb.{name}.{key}_out": tower for key, tower in zip(keys, s.vectors(13), strict=True)}
    file = s.bundle({}, extra=written)
    assert s.pixels(f"<lora:{file}:1> a {name} face") == s.pixels(f"a {reference} face")


def b5_names_with_dots_and_spaces(s: Situation) -> None:
    """A dotted name is its whole self; two with one head are two; an empty name costs nothing."""
    one, two, head = s.vectors(14), s.vectors(15), s.fresh()
    refs = s.embedding(one), s.embedding(two)
    nameless = {"bundle_emb..string_to_param.*": one[0].clone()}
    file = s.bundle({f"{head}.a girl": one, f"{head}.b girl": two}, extra=nameless)
    for name, ref in zip((f"{head}.a girl", f"{head}.b girl"), refs, strict=True):
        assert s.pixels(f"<lora:{file}:1> photo, {name}, smile") == s.pixels(f"photo, {ref}, smile")


def b6_every_embedding_that_does_not_fit_is_named(s: Situation) -> None:
    """Words of another model's width are set aside, each by its name."""
    names = [s.fresh(), s.fresh()]
    other = tuple(torch.full((2, width + 8), 0.1) for width in s.material.widths)
    file = s.bundle({name: tuple(tower.clone() for tower in other) for name in names})
    said = s.said(f"<lora:{file}:1> a face")
    assert all(name in said for name in names)
    assert "do not fit this checkpoint" in said
    assert file not in s.webui.call("/sdapi/v1/embeddings")["skipped"], "a file is no embedding"


def b8_conditionings_after_a_change(s: Situation) -> None:
    """A file saved again under its name: its words are the new ones, in a prompt that was made before."""
    name = s.fresh()
    refs = s.embedding(s.vectors(16)), s.embedding(s.vectors(17))
    file = s.bundle({name: s.vectors(16)})
    assert s.pixels(f"<lora:{file}:1> a {name} face") == s.pixels(f"a {refs[0]} face")
    s.pixels(f"<lora:{file}:1> a {name} face")
    s.bundle({name: s.vectors(17)}, name=file)
    assert s.pixels(f"<lora:{file}:1> a {name} face") == s.pixels(f"a {refs[1]} face")


def b9_weights_after_a_change(s: Situation) -> None:
    """The same for the network's weights, also with a time stamp that is not newer."""
    both = s.bundle({}, parts=("unet", "te"))
    only = s.bundle({}, parts=("unet",))
    file = s.bundle({}, parts=("unet", "te"))
    path = s.webui.lora_folder / f"{file}.safetensors"
    before = path.stat()
    assert s.pixels(f"<lora:{file}:1> a face") == s.pixels(f"<lora:{both}:1> a face")
    s.pixels(f"<lora:{file}:1> a face")
    s.bundle({}, name=file, parts=("unet",))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert s.pixels(f"<lora:{file}:1> a face") == s.pixels(f"<lora:{only}:1> a face")


def b11_te_alone(s: Situation) -> None:
    """`te=0` switches the text encoder off, not the U-Net too; the picture's infotext says it plainly."""
    name = s.fresh()
    file = s.bundle({name: s.vectors(18)}, parts=("unet", "te"))
    made = s.webui.txt2img(f"<lora:{file}:1:te=0> a {name} face")
    assert made.image.tobytes() == s.pixels(f"<lora:{file}:0:1> a {name} face")
    assert f"<lora:{file}:0:1>" in made.infotext


def b11_a_weight_that_is_no_number(s: Situation) -> None:
    """It costs that tag alone."""
    good, bad = s.bundle({}, parts=("unet",)), s.bundle({}, parts=("te",))
    s.pixels("a face")
    assert s.pixels(f"<lora:{good}:1><lora:{bad}:off> a face") == s.pixels(f"<lora:{good}:1> a face")


def b11_a_file_name_with_an_equals_sign(s: Situation) -> None:
    file, same = s.bundle({}, name=f"a={s.fresh()}", parts=("unet",)), s.bundle({}, parts=("unet",))
    assert s.pixels(f"<lora:{file}:1> a face") == s.pixels(f"<lora:{same}:1> a face")


def b12_vectors_after_the_last_comma(s: Situation) -> None:
    """What is moved into the next chunk takes its vectors along."""
    name, vectors = s.fresh(), s.vectors(19, rows=6)
    file = s.bundle({name: vectors})
    filler = " ".join(["red"] * 64)
    moved = s.pixels(f"<lora:{file}:1> {filler}, a {name} blue green white black")
    assert moved == s.pixels(f"<lora:{file}:1> {filler}, BREAK a {name} blue green white black")


def b13_more_vectors_than_fit(s: Situation) -> None:
    """A word longer than a chunk is skipped and said; the others work."""
    name, long = s.fresh(), s.fresh("long")
    reference = s.embedding(s.vectors(20))
    file = s.bundle({name: s.vectors(20), long: s.vectors(21, rows=80)})
    said = s.said(f"<lora:{file}:1> a {name} face, {long}")
    assert s.pixels(f"<lora:{file}:1> a {name} face") == s.pixels(f"a {reference} face")
    assert long in said


def b13_one_dimension(s: Situation) -> None:
    """A single vector saved without its row dimension is a single vector."""
    name, towers = s.fresh(), s.vectors(22, rows=1)
    reference = s.embedding(towers)
    file = s.bundle({name: tuple(tower[0].clone() for tower in towers)})
    assert s.pixels(f"<lora:{file}:1> a {name} face") == s.pixels(f"a {reference} face")


def b14_punctuation_at_the_ends(s: Situation) -> None:
    """OneTrainer's default name is found next to commas, points, quotes and brackets."""
    vectors = s.vectors(23)
    reference = s.embedding(vectors)
    file = s.bundle({"<embedding>": vectors})
    for text in ("a, {}, b", "photo of {}.", '"{}"', "{}'s hat", "({}:1.3), b"):
        assert s.pixels(f"<lora:{file}:1> " + text.format("<embedding>")) == s.pixels(text.format(reference)), text


def b14_digits_at_the_end(s: Situation) -> None:
    """`v1` is not the beginning of `v12`, and `char` not the end of `xchar`."""
    name = f"{s.fresh()}-v1"
    file, plain = s.bundle({name: s.vectors(24)}), s.bundle({}, parts=("unet",))
    assert s.pixels(f"<lora:{file}:1> a {name}2 face") == s.pixels(f"<lora:{plain}:0> a {name}2 face")
    assert s.pixels(f"<lora:{file}:1> a {name} face") != s.pixels(f"<lora:{plain}:0> a {name} face")


def b14_names_that_look_like_tags(s: Situation) -> None:
    """`<s:0>` is taken out of every prompt before words are looked for: it is said, and the other words work."""
    name = s.fresh()
    reference = s.embedding(s.vectors(33))
    file = s.bundle({"<s:0>": s.vectors(34), name: s.vectors(33)})
    assert "looks like a tag" in s.said(f"<lora:{file}:1> a {name} face")
    assert s.pixels(f"<lora:{file}:1> a {name} face") == s.pixels(f"a {reference} face")


def b15_infotext(s: Situation) -> None:
    """The file's hash stands beside the word, once, also when the conditioning is reused."""
    name = s.fresh()
    digest = "0123456789abcdef" * 4
    file = s.bundle({name: s.vectors(25)}, metadata={"sshs_model_hash": digest})
    for seed in (1, 2, 3):
        infotext = s.webui.txt2img(f"<lora:{file}:1> a {name} face", seed=seed).infotext
        assert "TI hashes" in infotext
        assert infotext.split("TI hashes")[1].count(f"{name}: {digest[:12]}") == 1


def b15_infotext_of_the_second_pass(s: Situation) -> None:
    """What only the second pass' prompt names stands in the infotext with its hash, as what the first one's does."""
    name = s.fresh()
    reference, digest = s.embedding(s.vectors(26)), "0123456789abcdef" * 4
    file = s.bundle({name: s.vectors(25)}, metadata={"sshs_model_hash": digest})
    settings = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.8}
    prompt = f"<lora:{file}:1> a {name} face, {reference}"
    for seed in (1, 2):
        told = s.webui.txt2img("a face", seed=seed, hr_prompt=prompt, **settings).infotext.split("TI hashes")[1]
        assert told.count(f"{name}: {digest[:12]}") == 1
        assert told.count(f"{reference}: ") == 1


def b18_a_batch_with_different_tags(s: Situation) -> None:
    """Prompts of one batch that name different LoRAs: each picture gets its own."""
    name = s.fresh()
    file = s.bundle({name: s.vectors(26)}, parts=("unet",))
    settings = {
        "script_name": "prompt matrix",
        "script_args": [False, False, "positive", "comma", 0],
        "save_images": False,
    }
    expected = s.pixels(f"a face, <lora:{file}:1> {name}")
    answer = s.webui.ask_txt2img(f"a face| <lora:{file}:1> {name}", batch_size=2, **settings)
    assert expected in s.webui.pictures(answer)


def b19_hires_with_conditionings_of_the_first_pass(s: Situation) -> None:
    """A bundle that only the second pass' prompt names, with "use first pass conds"."""
    name = s.fresh()
    reference = s.embedding(s.vectors(27))
    file = s.bundle({name: s.vectors(27)})
    settings = {
        "enable_hr": True,
        "hr_scale": 2,
        "hr_upscaler": "Latent",
        "denoising_strength": 0.8,
        "hr_second_pass_steps": 6,
        "options": {"hires_fix_use_firstpass_conds": True},
    }
    ours = s.pixels("a face", hr_prompt=f"<lora:{file}:1> a {name} face", **settings)
    assert ours == s.pixels("a face", hr_prompt=f"a {reference} face", **settings)


def b20_a_refiner_that_is_loaded_anew(s: Situation) -> None:
    """Names hold after the switch to a refiner of another configuration."""
    name = s.fresh()
    reference = s.embedding(s.vectors(28))
    file = s.bundle({name: s.vectors(28)})
    settings = {"refiner_checkpoint": s.webui.second_checkpoint(s.checkpoint), "refiner_switch_at": 0.5}
    assert s.pixels(f"<lora:{file}:1> a {name} face", **settings) == s.pixels(f"a {reference} face", **settings)


def b22_extra_networks_switched_off(s: Situation) -> None:
    """What stays in force from the picture before is said."""
    file = s.bundle({s.fresh(): s.vectors(29)}, parts=("unet",))
    s.pixels(f"<lora:{file}:1> a face")
    assert file in s.said("a face", disable_extra_networks=True)


def b23_no_embeddings(s: Situation) -> None:
    """`words=0` keeps the network and lets no name hold."""
    name = s.fresh()
    file, plain = s.bundle({name: s.vectors(30)}, parts=("unet",)), s.bundle({}, parts=("unet",))
    assert s.pixels(f"<lora:{file}:1:words=0> a {name} face") == s.pixels(f"<lora:{plain}:1> a {name} face")


def b25_listed(s: Situation) -> None:
    """The API lists every file's words and parts."""
    name = s.fresh()
    file = s.bundle({name: s.vectors(31, rows=5)}, parts=("unet",))
    listed = {entry["name"]: entry for entry in s.webui.call("/pivotal/v1/bundles")}
    assert [(embedding["name"], embedding["vectors"]) for embedding in listed[file]["words"]] == [(name, 5)]
    assert listed[file]["parts"] == ["unet"]


def embeddings_without_the_network(s: Situation) -> None:
    """`<words:file>` is the words alone: no network, not even one that cannot be loaded."""
    name = s.fresh()
    reference = s.embedding(s.vectors(32))
    broken = {"lora_unet_mid_block_attentions_0_proj_in.lora_down.nonsense": torch.zeros(2, 2)}
    for extra, parts in ((None, ("unet", "te")), (broken, ())):
        file = s.bundle({name: s.vectors(32)}, parts=parts, extra=extra)
        assert s.pixels(f"<words:{file}> a {name} face") == s.pixels(f"a {reference} face")


CASES = [value for key, value in dict(globals()).items() if key.startswith(("b", "words_")) and callable(value)]
"""Every situation of this file."""
