"""What the fake web UI and the real one are asked alike: every answer is plain JSON, and must be the same.

`tests/webui/test_questions.py` asks the fake in this process; `tests/live/test_fake_is_like_the_real_one.py` puts this
file into an extension of a real web UI (v1.10.1) and compares. So it imports nothing but what both have, and asks
nothing that hangs on a checkpoint's weights or widths. Files that it needs it writes itself: `folder` of a question's
argument is one that it may use, and LoRA files lie in `--lora-dir`. All is put back after each question.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file

PROMPTS = (
    "",
    "a face",
    "a (face:1.3), [night], \\(x\\)",
    "((a)) b [c] (d:0.5)(e)",
    "one BREAK two",
    "(unbalanced [x",
    "a) b] :c",
    "word, " * 40,
    "dog " * 60 + ", " + "cat " * 20,
    "dog " * 74 + ", cat",
    "x" * 300,
    "émoji ☺ and 日本",
    "<lora:x:1> a",
    "AND (a:1.1) AND b",
    "\\\\ backslash \\[",
    "(a:1.2",
    "(a:x)",
)


def answer(name: str, folder: str) -> Any:
    """One question's."""
    return json.loads(json.dumps(QUESTIONS[name](Path(folder))))


def _model() -> Any:
    from modules import shared

    return shared.sd_model


def _encoder() -> Any:
    """The (first) text encoder."""
    encoder = _model().cond_stage_model
    return next((one for one in getattr(encoder, "embedders", [encoder]) if hasattr(one, "tokenize_line")), None)


def _chunks(line: str) -> Any:
    chunks, count = _encoder().tokenize_line(line)
    plain = [
        {
            "tokens": [int(token) for token in chunk.tokens],
            "multipliers": [round(float(weight), 6) for weight in chunk.multipliers],
            "fixes": [(int(fix.offset), fix.embedding.name) for fix in chunk.fixes],
        }
        for chunk in chunks
    ]
    return {"chunks": plain, "count": int(count)}


class _Options:
    """Settings have other values inside."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def __enter__(self) -> None:
        from modules import shared

        self.before = dict(shared.opts.data)
        shared.opts.data.update(self.values)

    def __exit__(self, *_: Any) -> None:
        from modules import shared

        shared.opts.data.clear()
        shared.opts.data.update(self.before)


class _Registry:
    """Inside, embeddings of these names and numbers of vectors are registered; all is as before after it."""

    def __init__(self, **vectors: int) -> None:
        self.vectors = vectors

    def __enter__(self) -> Any:
        from modules import sd_hijack
        from modules.textual_inversion.textual_inversion import Embedding

        self.database = database = sd_hijack.model_hijack.embedding_db
        self.before = [
            dict(table) for table in (database.ids_lookup, database.word_embeddings, database.skipped_embeddings)
        ]
        for table in (database.ids_lookup, database.word_embeddings, database.skipped_embeddings):
            table.clear()
        for name, rows in self.vectors.items():
            embedding = Embedding(torch.zeros(rows, 4), name.replace("_", " "))
            embedding.vectors, embedding.shape = rows, 4
            database.register_embedding(embedding, _model())
        return database

    def __exit__(self, *_: Any) -> None:
        database = self.database
        tables = (database.ids_lookup, database.word_embeddings, database.skipped_embeddings)
        for table, content in zip(tables, self.before):  # noqa: B905  # Python 3.10 of the web UI has it, 3.9 not
            table.clear()
            table.update(content)


class _Loras:
    """LoRA files of these tensors, listed; gone after it, with all that was loaded."""

    def __init__(self, files: dict[str, tuple[dict[str, torch.Tensor], dict[str, str]]]) -> None:
        self.files = files

    def __enter__(self) -> Any:
        import networks
        from modules import shared

        self.paths = []
        for name, (tensors, metadata) in self.files.items():
            path = Path(shared.cmd_opts.lora_dir) / f"{name}.safetensors"
            save_file(tensors, str(path), metadata or {"format": "pt"})
            self.paths.append(path)
        networks.list_available_networks()
        return networks

    def __exit__(self, *_: Any) -> None:
        import networks

        networks.load_networks([])
        networks.networks_in_memory.clear()
        for path in self.paths:
            path.unlink()
        networks.list_available_networks()


def _width() -> int:
    return int(_encoder().encode_embedding_init_text(",", 1).shape[1])


def _word(name: str, rows: int = 2, width: int | None = None) -> dict[str, torch.Tensor]:
    return {f"bundle_emb.{name}.string_to_param.*": torch.zeros(rows, width or _width())}


LAYER = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
MODULE = "diffusion_model_middle_block_1_transformer_blocks_0_attn1_to_q"


def _layer(strength: float = 1.0) -> dict[str, torch.Tensor]:
    weight = _model().network_layer_mapping[MODULE].weight
    return {
        f"{LAYER}.lora_up.weight": strength * torch.ones(weight.shape[0], 2),
        f"{LAYER}.lora_down.weight": torch.ones(2, weight.shape[1]),
        f"{LAYER}.alpha": torch.tensor(1.0),
    }


def _errors(before: int) -> list[str]:
    """What the web UI swallowed since."""
    from modules import errors

    return [str(record["exception"]) for record in errors.exception_records[before:]]


def _records() -> int:
    from modules import errors

    errors.exception_records.clear()
    return 0


def _p(**values: Any) -> Any:
    """What extra networks ask of a picture."""
    comments: list[str] = []
    return SimpleNamespace(
        **{
            "scripts": None,
            "all_prompts": ["x"],
            "extra_generation_params": {},
            "comment": comments.append,
            "comments": comments,
            **values,
        }
    )


# ---- prompts ----


def attention(_: Path) -> Any:
    from modules import prompt_parser

    return [[[text, round(weight, 6)] for text, weight in prompt_parser.parse_prompt_attention(p)] for p in PROMPTS]


def chunks(_: Path) -> Any:
    with _Registry(hana=2, hana_ko=3, long=40):
        found = [_chunks(prompt) for prompt in (*PROMPTS, "a hana, hana ko b", "long long (long:1.2)", "hanako")]
        found += [_chunks(f"{'dog ' * 60}, {'cat ' * room}hana {'sky ' * 6}") for room in range(2, 12)]
        with _Options(comma_padding_backtrack=0):
            found.append(_chunks(f"{'dog ' * 60}, {'cat ' * 20}"))
        for emphasis in ("None", "Ignore", "No norm"):
            with _Options(emphasis=emphasis):
                found.append(_chunks("a (face:1.3) BREAK hana"))
    return found


def tokens(_: Path) -> Any:
    encoder = _encoder()
    names = ("hana", "Hana", "hana-ko", "a_b", "x@y", "  two  words ", "日本", "")
    return {
        "ids": [[int(i) for i in ids] for ids in encoder.tokenize(list(names))],
        "special": [int(x) for x in (encoder.id_start, encoder.id_end, encoder.id_pad, encoder.comma_token)],
        "empty": [int(x) for x in encoder.empty_chunk().tokens],
        "targets": [encoder.get_target_prompt_token_count(n) for n in (0, 1, 75, 76, 150, 151)],
    }


def lengths(_: Path) -> Any:
    from modules import sd_hijack, ui

    with _Registry(hana=5):
        pairs = [sd_hijack.model_hijack.get_prompt_lengths(text) for text in ("", "a hana face", "word " * 80)]
        shown = [ui.update_token_counter(text, 20, []) for text in ("a hana face", "<lora:x:1>a face")]
    return [[list(map(int, pair)) for pair in pairs], shown]


# ---- embeddings ----


def registry(_: Path) -> Any:
    from modules.textual_inversion.textual_inversion import Embedding

    def shown(database: Any) -> Any:
        lookup = {str(first): [[list(ids), e.name] for ids, e in found] for first, found in database.ids_lookup.items()}
        return [lookup, list(database.word_embeddings)]

    found = []
    with _Registry(hana=2) as database:
        model = _model()
        database.register_embedding(Embedding(torch.zeros(1, 4), "hana ko"), model)
        found.append(shown(database))
        database.register_embedding(Embedding(torch.zeros(1, 4), "Hana"), model)
        found.append(shown(database))
        ids = _encoder().tokenize(["hana ko hana x"])[0]
        for offset in range(len(ids)):
            embedding, length = database.find_embedding_at_position(ids, offset)
            found.append([getattr(embedding, "name", None), length])
        for name in ("hana", "nobody", "hana ko", "Hana"):
            found.append([database.register_embedding_by_name(None, model, name), shown(database)])
        found.append(
            database.get_expected_shape()
            == sum(
                one.encode_embedding_init_text(",", 1).shape[1]
                for one in getattr(model.cond_stage_model, "embedders", [model.cond_stage_model])
                if hasattr(one, "encode_embedding_init_text")
            )
        )
    return found


def embedding_data(_: Path) -> Any:
    from modules.textual_inversion import textual_inversion

    cases: list[Any] = [
        {"string_to_param": {"*": torch.zeros(2, 8)}},
        {"string_to_param": {"*": torch.zeros(2, 8), "+": torch.zeros(1, 8)}},
        {"clip_l": torch.zeros(2, 8), "clip_g": torch.zeros(2, 12)},
        {"x": torch.zeros(8)},
        {"x": torch.zeros(3, 8).half()},
        {"x": torch.zeros(8), "y": torch.zeros(8)},
        {"x": {"y": 1}},
    ]
    found = []
    for data in cases:
        try:
            made = textual_inversion.create_embedding_from_data(data, "name", filename="file")
            vec = made.vec if isinstance(made.vec, dict) else {"": made.vec}
            shapes = {key: [list(tensor.shape), str(tensor.dtype)] for key, tensor in vec.items()}
            found.append([made.name, made.vectors, made.shape, made.step, made.shorthash, made.filename, shapes])
        except Exception as error:
            found.append([type(error).__name__, str(error)])
    return found


def embedding_folder(folder: Path) -> Any:
    """Files of the right and of another width, a broken one, and the folder's time stamp."""
    from modules.textual_inversion.textual_inversion import EmbeddingDatabase

    here = folder / "embeddings"
    (here / "below").mkdir(parents=True, exist_ok=True)
    width = _width()
    if len(getattr(_model().cond_stage_model, "embedders", ())) > 1:
        width = EmbeddingDatabase().get_expected_shape()
    save_file({"emb_params": torch.zeros(2, width)}, str(here / "zoe.safetensors"))
    save_file({"emb_params": torch.zeros(2, width)}, str(here / "below" / "Anna.safetensors"))
    save_file({"emb_params": torch.zeros(2, width + 1)}, str(here / "other.safetensors"))
    (here / "broken.safetensors").write_bytes(b"x" * 50)
    (here / "empty.safetensors").write_bytes(b"")
    (here / "text.txt").write_text("x")
    start = _records()
    database = EmbeddingDatabase()
    database.add_embedding_dir(str(here))
    found = []
    database.load_textual_inversion_embeddings()
    found.append([list(database.word_embeddings), sorted(database.skipped_embeddings), len(_errors(start))])
    (here / "zoe.safetensors").unlink()
    os.utime(here, (1e9, 1e9))
    database.load_textual_inversion_embeddings()
    found.append(list(database.word_embeddings))
    os.utime(here, (4e9, 4e9))
    database.load_textual_inversion_embeddings()
    found.append(list(database.word_embeddings))
    (here / "below" / "Anna.safetensors").unlink()
    database.load_textual_inversion_embeddings(force_reload=True)
    found.append(list(database.word_embeddings))
    return found


def splice(_: Path) -> Any:
    """Vectors over the tokens' own, for one call."""
    from modules import sd_hijack
    from modules.sd_hijack_clip import PromptChunkFix
    from modules.textual_inversion.textual_inversion import Embedding

    class Hijack:
        fixes: Any = None

    table = torch.nn.Embedding(10, 4)
    with torch.no_grad():
        table.weight.copy_(torch.arange(40.0).reshape(10, 4))
    hijack = Hijack()
    module = sd_hijack.EmbeddingsWithFixes(table, hijack, textual_inversion_key="clip_g")
    ids = torch.arange(6).reshape(1, 6)
    one, two = (
        Embedding(-torch.ones(2, 4), "one"),
        Embedding({"clip_g": -2 * torch.ones(3, 4), "clip_l": torch.ones(3, 4)}, "two"),
    )
    found = []
    for fixes in (None, [], [[]], [[PromptChunkFix(0, one)]], [[PromptChunkFix(1, one), PromptChunkFix(3, two)]]):
        hijack.fixes = fixes
        with torch.no_grad():
            found.append([module(ids)[0, :, 0].tolist(), hijack.fixes, module(ids)[0, :, 0].tolist()])
    return found


# ---- extra networks ----


def tags(_: Path) -> Any:
    from modules import extra_networks

    def shown(params: Any) -> Any:
        return [list(params.items), list(params.positional), dict(params.named)]

    found = []
    for prompt in (
        "a <lora:x:1> b<lora:y:te=0:0.5><lyco:z>",
        "<lora:a=b:1>",
        "<lora:a=b=c>",
        "<words:x>",
        "<x> <:y> <lora:>",
        "plain",
    ):
        text, data = extra_networks.parse_prompt(prompt)
        found.append([text, {kind: [shown(each) for each in params] for kind, params in data.items()}])
    texts, first = extra_networks.parse_prompts(["a <lora:x:1>", "b <lora:y:1>"])
    found.append([texts, {kind: [shown(each) for each in params] for kind, params in first.items()}])
    found.append(extra_networks.ExtraNetworkParams(["a"]) == extra_networks.ExtraNetworkParams(["a"]))
    return found


def activation(_: Path) -> Any:
    """Which are activated with what, when one raises, an alias, an unknown one."""
    from modules import extra_networks

    calls: list[Any] = []

    class Noting(extra_networks.ExtraNetwork):
        def activate(self, p: Any, params_list: Any) -> None:
            calls.append([self.name, [params.items for params in params_list]])
            if any(params.items == ["bad"] for params in params_list):
                raise ValueError("refused")

        def deactivate(self, p: Any) -> None:
            calls.append([self.name, "off"])

    before = dict(extra_networks.extra_network_registry), dict(extra_networks.extra_network_aliases)
    start = _records()
    try:
        extra_networks.initialize()
        first, second = Noting("first"), Noting("second")
        extra_networks.register_extra_network(first)
        extra_networks.register_extra_network(second)
        extra_networks.register_extra_network_alias(first, "other")
        for prompt in ("<second:a>", "<other:b><first:c>", "<first:bad>", "<nobody:x>", ""):
            data = extra_networks.parse_prompt(prompt)[1]
            extra_networks.activate(_p(), data)
            extra_networks.deactivate(_p(), data)
            calls.append("next")
    finally:
        extra_networks.extra_network_registry.clear()
        extra_networks.extra_network_registry.update(before[0])
        extra_networks.extra_network_aliases.clear()
        extra_networks.extra_network_aliases.update(before[1])
    return [calls, _errors(start)]


def user_metadata(folder: Path) -> Any:
    from modules import extra_networks

    (folder / "a.json").write_text('{"x": 1}')
    (folder / "b.json").write_text("{")
    return [extra_networks.get_user_metadata(str(folder / f"{n}.safetensors")) for n in "abc"] + [
        extra_networks.get_user_metadata(None)
    ]


# ---- Lora ----


def lora_listing(_: Path) -> Any:
    files = {
        "one": (_layer(), {"ss_output_name": "Alias"}),
        "two": (_layer(), {"ss_output_name": "same"}),
        "three": (_layer(), {"ss_output_name": "same", "ss_tag_frequency": '{"a": {"b": 1}}', "ss_v2": "True"}),
        "x.y": (_layer(), {}),
    }
    with _Loras(files) as networks:
        found: list[Any] = [sorted(networks.available_networks), sorted(networks.available_network_aliases)]
        found.append(sorted(networks.forbidden_network_aliases))
        for name in sorted(files):
            entry = networks.available_networks[name]
            before = entry.shorthash
            entry.read_hash()
            listed = networks.available_network_hash_lookup.get(entry.shorthash) is not None
            found.append(
                [entry.name, entry.alias, entry.get_alias(), before, len(entry.hash), len(entry.shorthash), listed]
            )
            found.append(
                [entry.sd_version.name, {key: value for key, value in entry.metadata.items() if key != "format"}]
            )
        with _Options(lora_preferred_name="Filename"):
            found.append(networks.available_networks["one"].get_alias())
    return found


def _loaded(networks: Any) -> Any:
    return [
        [net.name, net.mentioned_name, net.te_multiplier, net.unet_multiplier, net.dyn_dim]
        for net in networks.loaded_networks
    ]


def lora_tags(_: Path) -> Any:
    """What a tag loads, by the web UI's own activation."""
    from modules import extra_networks, sd_hijack

    found = []
    with _Loras({"one": (_layer(), {"ss_output_name": "Alias"}), "two": (_layer(), {})}) as networks:
        for prompt in (
            "<lora:one:0.5>",
            "<lora:one:0.5:0.25>",
            "<lora:one:1:te=0>",
            "<lora:one:1:unet=0.5:dyn=1>",
            "<lora:one:1:1:2>",
            "<lyco:Alias:0.7><lora:two:1>",
            "<lora:one:off>",
            "<lora:one:1><lora:two:x>",
            "<lora:one:1><lora:one:0.5>",
            "<lora:nobody:1><lora:two:1>",
            "<lora:a=b:1>",
            "",
        ):
            start = _records()
            sd_hijack.model_hijack.comments.clear()
            p = _p()
            extra_networks.activate(p, extra_networks.parse_prompt(prompt)[1])
            hashes = sorted(getattr(p, "lora_hashes", {}))
            found.append(
                [prompt, _loaded(networks), len(_errors(start)), list(sd_hijack.model_hijack.comments), hashes]
            )
        sd_hijack.model_hijack.comments.clear()
        with _Options(sd_lora="two"):
            p = _p()
            extra_networks.activate(p, extra_networks.parse_prompt("<lora:one:1>")[1])
            found.append([p.all_prompts, _loaded(networks)])
    return found


def lora_words(_: Path) -> Any:
    """A bundle's words go into the registry and out again."""
    from modules import sd_hijack

    found = []
    total = _model().cond_stage_model.encode_embedding_init_text(",", 1).shape[1]
    single = total == _width()
    files = {
        "one": ({**_word("hana"), **_word("kira", 3)}, {}),
        "two": (_word("hana", 1), {}),
        "wide": (_word("far", 2, total + 1), {}),
        "dotted": (_word("ha.na"), {}),
        "odd": ({**_word("good"), "bundle_emb.odd": torch.zeros(2)}, {}),
    }
    with _Registry() as database, _Loras(files) as networks:
        shape, database.expected_shape = database.expected_shape, total
        try:
            for names in (["one"], ["one", "two"], ["two"], [], ["wide"], ["dotted"], ["odd"], ["one"]):
                start = _records()
                networks.load_networks(names)
                bundled = {net.name: sorted(net.bundle_embeddings) for net in networks.loaded_networks}
                registered = {name: int(each.vectors) for name, each in database.word_embeddings.items()}
                found.append(
                    [
                        bundled,
                        registered if single else sorted(bundled),
                        sorted(database.skipped_embeddings),
                        len(_errors(start)),
                    ]
                )
            if networks.loaded_networks:
                shorthash = networks.loaded_networks[0].bundle_embeddings["hana"].shorthash
                with _Options(lora_bundled_ti_to_infotext=False):
                    found.append([str(shorthash), bool(shorthash)])
                found.append(str(shorthash))
        finally:
            networks.load_networks([])
            database.expected_shape = shape
    sd_hijack.model_hijack.comments.clear()
    return found


def lora_merging(_: Path) -> Any:
    """Weights merged where the layer is used, from a backup, and taken out again."""
    layer = _model().network_layer_mapping[MODULE]
    found = []
    with torch.no_grad(), _Loras({"one": (_layer(), {}), "two": (_layer(2.0), {})}) as networks:
        own = layer.weight.detach().clone()

        def now() -> list[Any]:
            change = (layer.weight.detach() - own).float()
            names = [list(each) for each in getattr(layer, "network_current_names", ())]
            return [round(float(change.mean()), 4), round(float(change.std()), 4), names]

        for names, weights in ((["one"], [0.5]), (["one", "two"], [1.0, 0.5]), (["two"], [1.0]), ([], [])):
            networks.load_networks(names, weights, weights, [None] * len(names))
            before = now()
            layer(torch.zeros(1, own.shape[1], dtype=own.dtype))
            found.append([before, now(), getattr(layer, "network_weights_backup", None) is not None])
        found.append(bool(torch.equal(layer.weight.detach(), own)))
        networks.load_networks(["one"], [1.0], [1.0], [1])
        layer(torch.zeros(1, own.shape[1], dtype=own.dtype))
        found.append(now())
        networks.network_restore_weights_from_backup(layer)
        found.append(now())
        layer.network_current_names = ()
        networks.load_networks([])
        found.append(bool(torch.equal(layer.weight.detach(), own)))
    return found


def lora_memory(_: Path) -> Any:
    """What is read again: a file with a newer time stamp, not one with an older."""
    found = []
    with _Options(lora_in_memory_limit=1), _Loras({"one": (_layer(), {}), "two": (_layer(), {})}) as networks:
        path = Path(networks.available_networks["one"].filename)
        networks.load_networks(["one"])
        first = networks.loaded_networks[0]
        for stamp in (None, 1e9, 4e9):
            if stamp:
                os.utime(path, (stamp, stamp))
            networks.load_networks(["one"])
            found.append(networks.loaded_networks[0] is first)
        networks.load_networks(["two"])
        found.append(list(networks.networks_in_memory))
    return found


def lora_names(_: Path) -> Any:
    import networks

    keys = (
        "lora_unet_conv_in",
        "lora_unet_conv_out",
        "lora_unet_time_embedding_linear_2",
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_unet_down_blocks_0_resnets_1_conv1",
        "lora_unet_down_blocks_0_resnets_1_time_emb_proj",
        "lora_unet_down_blocks_1_downsamplers_0_conv",
        "lora_unet_mid_block_resnets_1_conv_shortcut",
        "lora_unet_mid_block_attentions_0_proj_in",
        "lora_unet_up_blocks_0_upsamplers_0_conv",
        "lora_unet_up_blocks_1_upsamplers_0_conv",
        "lora_unet_up_blocks_3_attentions_2_proj_out",
        "lora_te_text_model_encoder_layers_3_mlp_fc1",
        "lora_te_text_model_encoder_layers_3_self_attn_q_proj",
        "lora_te2_text_model_encoder_layers_3_mlp_fc2",
        "lora_te2_text_model_encoder_layers_3_self_attn_out_proj",
        "lora_te1_text_model_encoder_layers_3_mlp_fc2",
        "anything",
    )
    return [[networks.convert_diffusers_name_to_compvis(key, sd2) for sd2 in (False, True)] for key in keys]


def lora_pasted(_: Path) -> Any:
    """Lora's own answer to an old infotext."""
    from modules import script_callbacks

    pasted = next(
        each.callback
        for each in reversed(script_callbacks.callback_map["callbacks_infotext_pasted"])
        if each.callback.__module__ in ("lora_script", "lora_script.py")
    )
    with _Loras({"new": (_layer(), {})}) as networks:
        entry = networks.available_networks["new"]
        entry.read_hash()
        params = {"Prompt": "<lora:old:1> <lora:old> <lyco:old:1>", "Lora hashes": f"old: {entry.shorthash}"}
        pasted("", params)
    return params["Prompt"]


# ---- the rest ----


def settings(_: Path) -> Any:
    from modules import shared

    opts, made = shared.opts, []
    info = shared.OptionInfo(3, "Label", section=("x", "X")).info("said")
    with _Options():
        opts.add_option("fake_question", info)
        made += [opts.fake_question, opts.data.get("fake_question"), info.comment_after, opts.set("fake_question", 3)]
        made += [opts.set("fake_question", 4), opts.fake_question, opts.data["fake_question"]]

        def refuse() -> None:
            raise ValueError("no")

        info.onchange = refuse
        start = _records()
        made += [opts.set("fake_question", 5), opts.fake_question, _errors(start)]
        made += [opts.set("fake_question", 6, run_callbacks=False), opts.fake_question]
        info.restrict_api = True
        made += [opts.set("fake_question", 7, is_api=True), opts.fake_question]
        opts.data.pop("fake_question")
        made.append(opts.fake_question)
        try:
            opts.nobody  # noqa: B018
        except AttributeError:
            made.append("no such")
    opts.data_labels.pop("fake_question")
    return made


DEFAULTS = (
    "CLIP_stop_at_last_layers emphasis comma_padding_backtrack use_old_emphasis_implementation sdxl_crop_top "
    "sdxl_crop_left sdxl_clip_l_skip fp8_storage cache_fp16_weight persistent_cond_cache tiling token_merging_ratio "
    "sd_noise_schedule hires_fix_use_firstpass_conds upcast_attn textual_inversion_add_hashes_to_infotext "
    "include_styles_into_token_counters extra_networks_default_multiplier samples_save samples_format grid_save "
    "grid_format return_grid grid_only_if_multiple grid_prevent_empty_spots n_rows grid_background_color "
    "grid_text_active_color grid_text_inactive_color dataset_filename_word_regex dataset_filename_join_string "
    "interrogate_keep_models_in_memory interrogate_deepbooru_score_threshold interrogate_return_ranks "
    "deepbooru_use_spaces deepbooru_escape deepbooru_sort_alpha deepbooru_filter_tags sd_lora lora_preferred_name "
    "lora_add_hashes_to_infotext lora_bundled_ti_to_infotext lora_show_all lora_hide_unknown_for_versions "
    "lora_in_memory_limit lora_functional use_old_scheduling textual_inversion_print_at_load"
).split()


def defaults(_: Path) -> Any:
    from modules import shared

    return {name: shared.opts.data_labels[name].default for name in DEFAULTS}


def state(_: Path) -> Any:
    from modules import shared

    shown = ("skipped", "interrupted", "stopping_generation", "job", "job_no", "job_count", "sampling_step")

    def now() -> list[Any]:
        return [getattr(shared.state, name) for name in shown]

    shared.state.begin(job="question")
    found = [now()]
    shared.state.interrupt()
    shared.state.skip()
    found.append(now())
    shared.state.begin(job="question")
    found.append(now())
    shared.state.nextjob()
    found.append(now())
    shared.state.end()
    found.append(now())
    return found


def lock(_: Path) -> Any:
    """In the order of asking."""
    from modules import call_queue

    order: list[int] = []
    queue = call_queue.queue_lock
    found: list[Any] = [type(queue).__name__, queue.acquire(), queue.acquire(blocking=False)]
    threads = []
    for number in range(4):
        threads.append(threading.Thread(target=lambda n=number: (queue.acquire(), order.append(n), queue.release())))
        threads[-1].start()
        while len(queue._pending_threads) <= number:
            pass
    queue.release()
    for thread in threads:
        thread.join()
    found += [order, queue._lock.locked(), len(queue._pending_threads)]
    return [*found, call_queue.wrap_queued_call(lambda x: [x, queue._lock.locked()])(1)]


def torch_load(folder: Path) -> Any:
    """`torch.load` is the web UI's: it answers None for what it refuses."""
    from modules import safe

    found: list[Any] = [torch.load is safe.load]
    start = _records()
    saved: dict[str, Any] = {"zip": {"x": torch.ones(2)}, "odd": {"x": os.system}}
    for name, value in saved.items():
        torch.save(value, folder / f"{name}.pt")
        found.append(torch.load(str(folder / f"{name}.pt")) is None)
    (folder / "text.pt").write_text("no pickle")
    found.append(torch.load(str(folder / "text.pt")) is None)
    found.append([bool(text) for text in _errors(start)])
    loaded = safe.unsafe_torch_load(str(folder / "zip.pt"))
    return [*found, loaded["x"].tolist()]


def cached(folder: Path) -> Any:
    from modules import cache

    path = folder / "file"
    path.write_text("x")
    os.utime(path, (2e9, 2e9))
    numbers = iter(range(10))
    table = cache.cache("fake-question")
    found = []
    for stamp in (2e9, 2e9, 1e9, 3e9):
        os.utime(path, (stamp, stamp))
        found.append(cache.cached_data_for_file("fake-question", "title", str(path), lambda: next(numbers)))
    found.append(cache.cached_data_for_file("fake-question", "none", str(path), lambda: None))
    found.append(["title" in table, "none" in table, table.get("title")["mtime"]])
    table.pop("title", None)
    return [*found, "title" in table]


def callbacks(_: Path) -> Any:
    """In which order, and what one that raises stops."""
    from modules import script_callbacks

    calls: list[Any] = []
    before = {key: list(found) for key, found in script_callbacks.callback_map.items()}
    ordered = getattr(script_callbacks, "ordered_callbacks_map", {})
    start = _records()
    try:
        script_callbacks.clear_callbacks()

        def failing(*_: Any) -> None:
            calls.append("failing")
            raise ValueError("told")

        script_callbacks.on_infotext_pasted(lambda text, params: calls.append(["first", text, params]))
        script_callbacks.on_infotext_pasted(failing)
        script_callbacks.on_infotext_pasted(lambda *_: calls.append("last"))
        script_callbacks.infotext_pasted_callback("text", {"a": 1})
        for number in range(2):
            script_callbacks.on_before_ui(lambda n=number: calls.append(["ui", n]))
            script_callbacks.on_script_unloaded(lambda n=number: calls.append(["unloaded", n]))
            script_callbacks.on_ui_tabs(lambda n=number: [(None, f"tab {n}", "id")])
        script_callbacks.on_ui_tabs(lambda: None)
        script_callbacks.before_ui_callback()
        script_callbacks.script_unloaded_callback()
        calls.append([[title for _, title, _ in script_callbacks.ui_tabs_callback()]])
        params = script_callbacks.BeforeTokenCounterParams("p", 20, ["s"])
        script_callbacks.on_before_token_counter(
            lambda given: calls.append([given.prompt, given.steps, given.styles, given.is_positive])
        )
        script_callbacks.before_token_counter_callback(params)
    finally:
        ordered.clear()
        for key, found in before.items():
            script_callbacks.callback_map[key][:] = found
    return [calls, _errors(start)]


def grids(_: Path) -> Any:
    from modules import images
    from PIL import Image

    pictures = [Image.new("RGB", (32, 16), (20 * number, 0, 0)) for number in range(6)]
    found = []
    for rows in (None, 1, 2, 3, 9):
        grid = images.image_grid(pictures, rows=rows)
        found.append([grid.size, grid.getpixel((0, 0)), grid.getpixel((grid.width - 1, grid.height - 1))])
    texts = [[images.GridAnnotation(name)] for name in "abc"]
    drawn = images.draw_grid_annotations(
        images.image_grid(pictures, rows=2), 32, 16, texts, [[images.GridAnnotation("")] for _ in range(2)], 3
    )
    found.append([drawn.width, drawn.height > 32 + 3])
    try:
        images.draw_grid_annotations(images.image_grid(pictures, rows=2), 32, 16, texts[:2], texts[:2])
    except AssertionError as error:
        found.append(str(error))
    return found


def quoting(_: Path) -> Any:
    from modules.ui_extra_networks import quote_js

    return [quote_js(text) for text in ("a", 'a "b"', "a\\b", "")]


def styles(_: Path) -> Any:
    from modules import shared
    from modules.styles import PromptStyle

    database = shared.prompt_styles
    before = dict(database.styles)
    try:
        fields = len(PromptStyle._fields)
        for name, prompt in (("plain", "smile"), ("around", "a {prompt} b"), ("none", "")):
            database.styles[name] = PromptStyle(*(name, prompt, f"no {name}", None)[:fields])
        found: list[Any] = [database.get_style_prompts(["plain", "nobody", "around"])]
        for chosen in ([], ["plain"], ["around"], ["plain", "around"], ["none"]):
            found.append([database.apply_styles_to_prompt("x", chosen), database.apply_styles_to_prompt("", chosen)])
    finally:
        database.styles.clear()
        database.styles.update(before)
    return found


def scripts(_: Path) -> Any:
    from modules import scripts as module

    class Mine(module.Script):
        def title(self) -> str:
            return "My Script (1)"

        def show(self, is_img2img: bool) -> Any:
            return module.AlwaysVisible

    class Half(Mine):
        def show(self, is_img2img: bool) -> Any:
            return not is_img2img

    made, half = Mine(), Half()
    made.is_txt2img, made.is_img2img = True, False
    half.is_txt2img, half.is_img2img = True, False
    return [
        made.elem_id("x"),
        half.elem_id("x"),
        made.create_group,
        made.infotext_fields,
        list(module.ScriptClassData._fields),
    ]


class _Picture:
    """A small picture by txt2img's own code."""

    @staticmethod
    def make(prompt: Any, **values: Any) -> Any:
        from modules import processing, shared

        p = processing.StableDiffusionProcessingTxt2Img(
            sd_model=_model(),
            prompt=prompt,
            width=64,
            height=64,
            steps=2,
            seed=values.pop("seed", 7),
            sampler_name="Euler",
            **values,
        )
        p.do_not_save_samples = p.do_not_save_grid = True
        shared.state.begin(job="question")
        try:
            return processing.process_images(p), p
        finally:
            shared.state.end()
            p.close()


def pictures(_: Path) -> Any:
    """What comes of a generation beside the pixels."""
    found: list[Any] = []
    for prompt, values in (
        ("a face", {}),
        (["a", "b"], {"batch_size": 2, "seed": [3, 4]}),
        ("a face", {"n_iter": 2, "batch_size": 2}),
    ):
        done, p = _Picture.make(prompt, **values)
        found.append(
            [len(done.images), done.index_of_first_image, [image.size for image in done.images], done.all_seeds]
        )
        found.append(
            [done.all_prompts, done.prompt, len(done.infotexts), p.main_prompt, done.infotexts[0].split("\n")[0]]
        )
        again, _again = _Picture.make(prompt, **values)
        found.append([one.tobytes() == two.tobytes() for one, two in zip(done.images, again.images)])  # noqa: B905
    return found


def caching(_: Path) -> Any:
    """When a conditioning is computed: by the prompt and how its tags are written, not what they stand for."""
    from modules import processing

    owner = processing.StableDiffusionProcessing
    encoder, calls = type(_encoder()), []
    original = encoder.process_tokens
    encoder.process_tokens = lambda self, *rest: calls.append(1) or original(self, *rest)
    found = []
    try:
        owner.cached_c, owner.cached_uc = [None, None], [None, None]
        for prompt, values in (
            ("a face", {}),
            ("a face", {}),
            ("a face", {"seed": 9}),
            ("a face", {"steps": 3}),
            ("<lora:nobody:1>a face", {}),
            ("<lora:nobody:1>a face", {}),
            ("<words:nobody>a face", {}),
            ("b face", {}),
        ):
            calls.clear()
            steps = values.pop("steps", 2)
            p = processing.StableDiffusionProcessingTxt2Img(
                prompt=prompt,
                width=64,
                height=64,
                steps=steps,
                seed=1,
                sampler_name="Euler",
                **{k: v for k, v in values.items() if k != "seed"},
            )
            p.do_not_save_samples = p.do_not_save_grid = True
            processing.process_images(p)
            p.close()
            found.append(bool(calls))
        key = p.cached_params(["a"], 2, {}, None, False)
        found.append(len(key))
        with _Options(persistent_cond_cache=False):
            p.close()
        found.append([owner.cached_c, owner.cached_uc])
    finally:
        encoder.process_tokens = original
    return found


def batches(_: Path) -> Any:
    """The turns of scripts, and whose tags act in a batch."""
    from modules import extra_networks, processing, shared

    calls: list[Any] = []

    class Runner:
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            noted = ("process", "before_process_batch", "process_batch", "after_extra_networks_activate", "postprocess")

            def run(p: Any, *args: Any, **kwargs: Any) -> None:
                if name in noted:
                    prompts = p.prompts if name != "process" else p.all_prompts
                    tags = {k: [x.items for x in v] for k, v in (getattr(p, "extra_network_data", None) or {}).items()}
                    calls.append([name, list(prompts or []), tags if name == "process_batch" else None])

            return run

    p = processing.StableDiffusionProcessingTxt2Img(
        prompt=["<x:one>a", "<x:two>b", "c", "d"],
        seed=[1, 2, 3, 4],
        batch_size=2,
        n_iter=2,
        width=64,
        height=64,
        steps=1,
        sampler_name="Euler",
    )
    p.do_not_save_samples = p.do_not_save_grid = True
    p.scripts = Runner()
    shared.state.begin(job="question")
    try:
        processing.process_images(p)
    finally:
        shared.state.end()
    return [calls, bool(extra_networks.extra_network_registry.get("lora")), p.all_prompts]


def infotexts(_: Path) -> Any:
    """Lines of the infotext that a reused conditioning forgets."""
    from modules.textual_inversion.textual_inversion import Embedding

    found = []
    with _Registry() as database:
        model = _model()
        tensors = {"clip_l": torch.zeros(1, 4), "clip_g": torch.zeros(1, 4)}
        del tensors
        encoders = [
            one
            for one in getattr(model.cond_stage_model, "embedders", [model.cond_stage_model])
            if hasattr(one, "tokenize_line")
        ]
        vecs = [torch.zeros(1, one.encode_embedding_init_text(",", 1).shape[1]) for one in encoders]
        vec = vecs[0] if len(vecs) == 1 else {"clip_l": vecs[0], "clip_g": vecs[1]}
        embedding = Embedding(vec, "ha:na")
        embedding.vectors, embedding.shorthash = 1, "0123456789ab"
        database.register_embedding(embedding, model)
        for prompt in ("ha:na q1", "ha:na q1", "q2"):
            done, _p_ = _Picture.make(prompt, do_not_reload_embeddings=True)
            found.append("TI hashes: hana: 0123456789ab" in done.infotexts[0].replace('"', ""))
        done, _p_ = _Picture.make("q4", do_not_reload_embeddings=True, enable_hr=True, hr_prompt="ha:na q5")
        found.append("TI hashes" in done.infotexts[0])
        with _Options(emphasis="No norm"):
            for _again in range(2):
                done, _p_ = _Picture.make("(q3:1.2)", do_not_reload_embeddings=True)
                found.append("Emphasis: No norm" in done.infotexts[0])
    return found


def checkpoints(_: Path) -> Any:
    from modules import sd_models, shared

    model = _model()
    info = model.sd_checkpoint_info
    name = info.name_for_extra
    found: list[Any] = [sd_models.model_data.sd_model is model, model.sd_model_checkpoint == info.filename]
    found.append(info.title.replace(name, "N").split(" [")[0])
    for text in (info.title, name, info.name, f"{info.name} [0000000000]", "nobody", "", None):
        match = sd_models.get_closet_checkpoint_match(text)
        found.append(match is not None and match.filename == info.filename)
    found.append([len(info.sha256 or ""), len(info.hash), len(info.shorthash or "")])
    found.append(sd_models.reload_model_weights() is model)
    found.append(sorted(set(sd_models.checkpoint_aliases) & set(info.ids)) == sorted(set(info.ids)))
    found.append(shared.opts.sd_model_checkpoint is None or sd_models.select_checkpoint().filename == info.filename)
    sd_models.apply_token_merging(model, 0)
    found.append(getattr(model, "applied_token_merged_ratio", 0))
    return found


def hijacked(_: Path) -> Any:
    """What is wrapped, and that it comes off and on again."""
    from modules import sd_hijack

    hijack, model = sd_hijack.model_hijack, _model()
    encoder = model.cond_stage_model

    def names() -> list[str]:
        now = model.cond_stage_model
        return [type(one).__name__ for one in getattr(now, "embedders", [now]) if hasattr(one, "wrapped")]

    found: list[Any] = [names(), hijack.clip is encoder, hijack.circular_enabled]
    convolution = next(module for module in model.modules() if type(module) is torch.nn.Conv2d)
    for enable in (True, True, False):
        hijack.apply_circular(enable)
        found.append([hijack.circular_enabled, convolution.padding_mode])
    hijack.comments.append("x")
    hijack.extra_generation_params["x"] = 1
    hijack.clear_comments()
    found.append([hijack.comments, hijack.extra_generation_params])
    hijack.undo_hijack(model)
    found.append([hijack.clip is None, hijack.layers is None])
    hijack.hijack(model)
    found.append([names(), hijack.clip is model.cond_stage_model])
    from modules import script_callbacks

    script_callbacks.model_loaded_callback(model)
    found.append(MODULE in model.network_layer_mapping)
    return found


def memory(_: Path) -> Any:
    """Hooks of --medvram, on a module tree of our own."""
    from modules import lowvram, shared

    class Part(torch.nn.Linear):
        def encode(self, x: Any) -> Any:
            return x

        decode = encode

    class Text(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.transformer = Part(1, 1)

    model = torch.nn.Module()
    model.first_stage_model, model.model, model.cond_stage_model = Part(1, 1), Part(1, 1), Text()
    found: list[Any] = [lowvram.is_needed(model)]
    before = shared.cmd_opts.medvram
    shared.cmd_opts.medvram = True
    try:
        found.append(lowvram.is_needed(model))
        lowvram.apply(model)
    finally:
        shared.cmd_opts.medvram = before
    found.append(lowvram.is_enabled(model))
    for part in (model.first_stage_model, model.model, model.cond_stage_model.transformer):
        names = [hook.__qualname__ for hook in part._forward_pre_hooks.values()]
        found.append([names, sorted(set(part.__dict__) & {"encode", "decode"})])
    lowvram.send_everything_to_cpu()
    shared.parallel_processing_allowed = True
    return found


def devices(_: Path) -> Any:
    from modules import devices as module

    names = ("cpu", "device", "dtype", "dtype_vae", "dtype_unet", "dtype_inference", "unet_needs_upcast", "fp8")
    found: list[Any] = [str(getattr(module, name)) for name in names]
    with module.autocast():
        found.append((torch.ones(1, 1) @ torch.ones(1, 1)).dtype == torch.float32)
    tensor = torch.ones(1)
    return [*found, module.cond_cast_unet(tensor) is tensor, module.get_optimal_device_name()]


def patching(_: Path) -> Any:
    """The web UI's own way to replace functions."""
    from modules import patches

    class Owner:
        @staticmethod
        def number() -> int:
            return 1

    found: list[Any] = []
    original = patches.patch("question", Owner, "number", lambda: 2)
    found += [original(), Owner.number()]
    for function in (
        lambda: patches.patch("question", Owner, "number", lambda: 3),
        *[lambda: patches.undo("question", Owner, "number")] * 2,
    ):
        try:
            function()
        except RuntimeError as error:
            found.append(str(error))
        found.append(Owner.number())
    return found


def signatures(_: Path) -> Any:
    """Functions of the web UI that the extension wraps or calls: names of arguments that both have, in order."""
    import inspect

    import networks
    from modules import extra_networks, processing, sd_hijack, sd_models
    from modules.textual_inversion import textual_inversion

    functions = (
        networks.load_network,
        networks.load_networks,
        networks.process_network_files,
        extra_networks.activate,
        extra_networks.deactivate,
        sd_models.read_state_dict,
        sd_models.reload_model_weights,
        processing.process_images,
        processing.process_images_inner,
        processing.StableDiffusionProcessing.cached_params,
        processing.StableDiffusionProcessing.get_conds_with_caching,
        sd_hijack.StableDiffusionModelHijack.get_prompt_lengths,
        textual_inversion.EmbeddingDatabase.find_embedding_at_position,
        textual_inversion.EmbeddingDatabase.register_embedding_by_name,
        textual_inversion.create_embedding_from_data,
    )
    return {function.__qualname__: list(inspect.signature(function).parameters) for function in functions}


def modules_there(_: Path) -> Any:
    """By their own names, as the extension looks for them."""
    names = ("networks", "network", "extra_networks_lora", "ui_extra_networks_lora", "ui_edit_user_metadata")
    logging.getLogger(__name__).debug("asked")
    return [name in sys.modules for name in names]


QUESTIONS = {
    function.__name__: function
    for function in (
        attention,
        chunks,
        tokens,
        lengths,
        registry,
        embedding_data,
        embedding_folder,
        splice,
        tags,
        activation,
        user_metadata,
        lora_listing,
        lora_tags,
        lora_words,
        lora_merging,
        lora_memory,
        lora_names,
        lora_pasted,
        settings,
        defaults,
        state,
        lock,
        torch_load,
        cached,
        callbacks,
        grids,
        quoting,
        styles,
        scripts,
        pictures,
        caching,
        batches,
        infotexts,
        checkpoints,
        hijacked,
        memory,
        devices,
        patching,
        signatures,
        modules_there,
    )
}
