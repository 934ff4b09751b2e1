"""The Bundles page: files with their embeddings, and work on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.errors import PivotalError
from lib_pivotal.ui import bundles_html
from lib_pivotal.ui.page import Page, Shown, message, quiet, sentence

if TYPE_CHECKING:
    from lib_pivotal.bundle.edits import Layout
    from lib_pivotal.bundle.embedding_files import EmbeddingFormat
    from lib_pivotal.bundle.listing import BundleSummary
    from lib_pivotal.bundle.low_rank import RankCut
    from lib_pivotal.ui.bundle_controller import BundleController

STRIPPED = {
    "U-Net": "unet",
    "text encoder": "te",
    "text encoder 2": "te2",
    "embeddings": "words",
    "metadata": "metadata",
}
EMBEDDINGS_AS: dict[str, EmbeddingFormat] = {
    "web UI, Forge, ComfyUI (.safetensors)": "a1111",
    "web UI, as it wrote them itself (.pt)": "a1111_pt",
    "diffusers and InvokeAI": "diffusers",
    "kohya's scripts": "kohya",
    "HCP-Diffusion": "hcp",
    "OneTrainer": "onetrainer",
}
NETWORK_AS: dict[str, Layout] = {
    "diffusers and InvokeAI (.safetensors)": "diffusers",
    "peft (a folder)": "peft",
    "kohya's scripts, web UI, Forge, ComfyUI": "kohya",
}
SVD_RULES = {
    "as given": "rank",
    "share of the sum of singular values": "share",
    "sv_ratio (largest / smallest)": "sv_ratio",
    "sv_fro (share of the Frobenius norm)": "sv_fro",
}
CHOOSE = '<div class="pivotal-empty">Choose a file on the left.</div>'
NONE_CHOSEN: Mapping[str, Any] = MappingProxyType({"bundle_card": CHOOSE, "bundle_work": gr.update(visible=False)})
CARD_FIELDS = ("card_description", "card_licence", "card_unet", "card_te", "card_cfg")
SHOWN_PARTS = (
    "bundle_list", "bundle_card", "bundle_work", "bundle_first_ranks", "bundle_word", "bundle_others", "bundle_said",
    *CARD_FIELDS,
)  # fmt: skip


def build_bundles_panel(page: Page) -> None:
    """List on the left, the chosen file on the right."""
    parts = page.parts
    page.hidden_text("bundle_pick")
    page.hidden_button("bundle_show")
    with gr.Row(elem_id="pivotal_bundles_body"):
        with gr.Column(scale=4, min_width=300):
            with gr.Row(elem_classes=["pivotal-tools"]):
                parts["bundle_filter"] = gr.Textbox(
                    placeholder="Filter by file or embedding", show_label=False, container=False, max_lines=1,
                    label="Filter of bundles", elem_id="pivotal_bundle_filter", scale=4,
                )  # fmt: skip
                parts["bundle_reload"] = gr.Button(
                    "Refresh", size="sm", scale=1, min_width=90, elem_id="pivotal_bundle_reload"
                )
            page.html("bundle_list")
        with gr.Column(scale=6, min_width=320):
            page.html("bundle_said")
            page.html("bundle_card", CHOOSE)
            with gr.Column(visible=False, elem_id="pivotal_bundle_work") as work:
                _build_embeddings(page)
                _build_card(page)
                _build_whole(page)
            parts["bundle_work"] = work
            _build_svd(page)


def _build_embeddings(page: Page) -> None:
    parts = page.parts
    with gr.Row(elem_classes=["pivotal-row"]):
        parts["bundle_word"] = gr.Dropdown([], label="Embedding", elem_id="pivotal_bundle_word", min_width=120, scale=2)
        parts["bundle_new"] = gr.Textbox(
            label="New name", elem_id="pivotal_bundle_new", max_lines=1, min_width=120, scale=2
        )
        parts["bundle_rename"] = gr.Button("Rename", elem_id="pivotal_bundle_rename", min_width=90, scale=1)
        parts["bundle_delete"] = gr.Button("Remove", elem_id="pivotal_bundle_delete", min_width=90, scale=1)
    page.html("bundle_name_note")
    with gr.Row(elem_classes=["pivotal-row"]):
        parts["bundle_add"] = gr.UploadButton(
            "Add an embedding (file)",
            file_types=[".pt", ".bin", ".safetensors"],
            size="sm",
            elem_id="pivotal_bundle_add",
        )
        parts["bundle_verify"] = gr.Button("Verify", size="sm", elem_id="pivotal_bundle_verify")


def _build_card(page: Page) -> None:
    parts = page.parts
    with gr.Accordion("Result card", open=False, elem_id="pivotal_card_box"):
        parts["card_description"] = gr.Textbox(
            label="Description", lines=2, elem_id="pivotal_card_description",
            placeholder="Who or what it is, and what it is good at",
        )  # fmt: skip
        with gr.Row(elem_classes=["pivotal-row"]):
            parts["card_licence"] = gr.Textbox(
                label="Licence", max_lines=1, elem_id="pivotal_card_licence", scale=3, min_width=160,
                placeholder="CC-BY-SA-4.0, or a link",
            )  # fmt: skip
            for name, label in (("unet", "U-Net weight"), ("te", "Text encoder weight"), ("cfg", "CFG")):
                parts[f"card_{name}"] = gr.Number(None, label=label, elem_id=f"pivotal_card_{name}", min_width=90)
        with gr.Row(elem_classes=["pivotal-tools"]):
            parts["bundle_describe"] = gr.Button(
                "Write the card", size="sm", elem_id="pivotal_bundle_describe", scale=0, min_width=160
            )
            parts["bundle_export"] = gr.Button(
                "Export as model page", size="sm", elem_id="pivotal_bundle_export", scale=0, min_width=160
            )


def _build_whole(page: Page) -> None:
    parts = page.parts
    with gr.Accordion("Write another file from this one", open=False, elem_id="pivotal_bundle_more"):
        with gr.Row(elem_classes=["pivotal-row"]):
            parts["bundle_adjustments"] = gr.Textbox(
                label="A copy with embeddings adjusted", max_lines=1, placeholder="hana*0.5~0.2",
                info="hana*0.5~0.2: norm × 0.5, and 0.2 of the way to the init text. Or paste the tag of the prompt.",
                elem_id="pivotal_bundle_adjustments", scale=4,
            )  # fmt: skip
            parts["bundle_adjust"] = gr.Button("Adjust", elem_id="pivotal_bundle_adjust", min_width=90, scale=1)
        with gr.Row(elem_classes=["pivotal-row"]):
            parts["bundle_words_as"] = gr.Dropdown(
                list(EMBEDDINGS_AS), value=next(iter(EMBEDDINGS_AS)), label="Each embedding as a file for",
                info="And the network without them, all in a folder of their own.",
                elem_id="pivotal_bundle_words_as", scale=4,
            )  # fmt: skip
            parts["bundle_split"] = gr.Button("Split", elem_id="pivotal_bundle_split", min_width=90, scale=1)
        with gr.Row(elem_classes=["pivotal-row"]):
            parts["bundle_network_as"] = gr.Dropdown(
                list(NETWORK_AS), value=next(iter(NETWORK_AS)), label="The network for",
                info="Without its embeddings: Split writes those.",
                elem_id="pivotal_bundle_network_as", scale=4,
            )  # fmt: skip
            parts["bundle_convert"] = gr.Button("Convert", elem_id="pivotal_bundle_convert", min_width=90, scale=1)
        with gr.Row(elem_classes=["pivotal-row"]):
            parts["bundle_first_ranks"] = gr.Slider(
                1, 128, value=4, step=1, label="A DyLoRA's first ranks",
                info="As they were trained; nothing of them is lost. Any other LoRA is resized below.",
                elem_id="pivotal_bundle_first_ranks", scale=4,
            )  # fmt: skip
            parts["bundle_cut"] = gr.Button("Cut", elem_id="pivotal_bundle_cut", min_width=90, scale=1)
        with gr.Row(elem_classes=["pivotal-row"]):
            parts["bundle_parts"] = gr.CheckboxGroup(
                list(STRIPPED),
                label="A copy without",
                elem_id="pivotal_bundle_parts",
                scale=4,
                info="Beside this file, with a name that tells what is gone.",
            )
            parts["bundle_strip"] = gr.Button("Write", elem_id="pivotal_bundle_strip", min_width=90, scale=1)
        with gr.Row(elem_classes=["pivotal-row"]):
            parts["bundle_others"] = gr.Dropdown(
                [],
                label="Join it with",
                multiselect=True,
                elem_id="pivotal_bundle_others",
                scale=3,
                info="Embeddings of all, networks added up.",
            )
            parts["bundle_joined"] = gr.Textbox(
                label="Name of the new file",
                elem_id="pivotal_bundle_joined",
                max_lines=1,
                scale=2,
                info="Beside this one.",
            )
            parts["bundle_join"] = gr.Button("Join", elem_id="pivotal_bundle_join", min_width=90, scale=1)


def _build_svd(page: Page) -> None:
    parts = page.parts
    with gr.Accordion("A LoRA by singular values (SVD)", open=False, elem_id="pivotal_bundle_svd"):
        with gr.Row(elem_classes=["pivotal-row"]):
            parts["svd_rank"] = gr.Number(16, label="Rank, at most", precision=0, elem_id="pivotal_svd_rank")
            parts["svd_conv_rank"] = gr.Number(
                0, label="Of 3x3 convolutions (0: as rank)", precision=0, elem_id="pivotal_svd_conv_rank"
            )
            parts["svd_rule"] = gr.Dropdown(
                list(SVD_RULES), value=next(iter(SVD_RULES)), label="Rank of a layer", elem_id="pivotal_svd_rule"
            )
            parts["svd_value"] = gr.Number(0.9, label="Value of the rule", elem_id="pivotal_svd_value")
        with gr.Row(elem_classes=["pivotal-row"]):
            parts["svd_tuned"] = gr.Textbox(
                label="Fine-tuned checkpoint (path)", max_lines=1, elem_id="pivotal_svd_tuned"
            )
            parts["svd_base"] = gr.Textbox(
                label="Base checkpoint (path)", max_lines=1, elem_id="pivotal_svd_base",
                info="Extract takes it away; Make a LoRA needs it for DoRA, (IA)^3, GLoRA and OFT.",
            )  # fmt: skip
        with gr.Row(elem_classes=["pivotal-row"]):
            parts["svd_name"] = gr.Textbox(
                label="Name of the new file", max_lines=1, elem_id="pivotal_svd_name", scale=4
            )
            for name, label in (("resize", "Resize"), ("to_lora", "Make a LoRA"), ("extract", "Extract")):
                parts[f"bundle_{name}"] = gr.Button(label, elem_id=f"pivotal_bundle_{name}", min_width=90, scale=1)


def bind_bundles_panel(page: Page) -> None:
    """Choose, filter, and work; each work shows what it did and what the file is now."""
    parts = page.parts
    outputs = page.named(*SHOWN_PARTS)
    base = [parts["bundle_pick"], parts["bundle_filter"]]

    def show(pick: str, query: str) -> Shown:
        return _shown(page, pick, query)

    quiet(parts["bundle_show"].click, show, base, outputs)
    quiet(parts["bundle_reload"].click, show, base, outputs)
    quiet(
        parts["bundle_filter"].change,
        lambda pick, query: shown(page.bundles, pick, query)["bundle_list"],
        base,
        parts["bundle_list"],
    )

    def bind(name: str, act: Callable[..., str], *inputs: str, event: str = "click", long: bool = False) -> None:
        def work(pick: str, query: str, *values: Any) -> Shown:
            try:
                said = message(act(pick, *values), "ok")
            except (PivotalError, OSError) as error:
                said = message(sentence(error))
            return _shown(page, pick, query, said)

        given = [*base, *(parts[other] for other in inputs)]
        if long:  # what takes minutes shows gradio's own progress, as a scan and a comparison do
            parts[name].click(work, given, outputs, show_progress="minimal", queue=False, api_name=False)
        else:
            quiet(getattr(parts[name], event), work, given, outputs)

    bind(
        "bundle_rename",
        lambda pick, embedding, new: page.bundles.rename_embedding(pick, embedding or "", (new or "").strip()),
        "bundle_word",
        "bundle_new",
    )
    quiet(
        parts["bundle_new"].change,
        lambda pick, embedding, new: _name_note(page.bundles, pick, embedding or "", (new or "").strip()),
        [parts["bundle_pick"], parts["bundle_word"], parts["bundle_new"]],
        parts["bundle_name_note"],
    )
    bind("bundle_delete", lambda pick, embedding: page.bundles.delete_embedding(pick, embedding or ""), "bundle_word")
    bind("bundle_add", lambda pick, file: page.bundles.add_word(pick, Path(file.name)), "bundle_add", event="upload")
    bind("bundle_adjust", lambda pick, text: page.bundles.adjust(pick, text or ""), "bundle_adjustments")
    bind("bundle_split", lambda pick, form: page.bundles.split(pick, EMBEDDINGS_AS[form]), "bundle_words_as")
    bind("bundle_convert", lambda pick, form: page.bundles.convert(pick, NETWORK_AS[form]), "bundle_network_as")
    bind("bundle_cut", lambda pick, rank: page.bundles.cut(pick, int(rank or 0)), "bundle_first_ranks")
    bind(
        "bundle_strip",
        lambda pick, chosen: page.bundles.strip(pick, [STRIPPED[one] for one in chosen or ()]),
        "bundle_parts",
    )
    bind(
        "bundle_join",
        lambda pick, others, out: page.bundles.join(pick, others or (), out or ""),
        "bundle_others",
        "bundle_joined",
    )
    svd = ("svd_name", "svd_rank", "svd_rule", "svd_value", "svd_conv_rank")
    bind("bundle_resize", lambda pick, name, *cut: page.bundles.resize(pick, name or "", _cut(*cut)), *svd, long=True)
    bind(
        "bundle_to_lora",
        lambda pick, base, name, *cut: page.bundles.to_lora(pick, name or "", _cut(*cut), base or ""),
        "svd_base",
        *svd,
        long=True,
    )
    bind(
        "bundle_extract",
        lambda pick, tuned, base, name, *cut: page.bundles.extract(tuned or "", base or "", name or "", _cut(*cut)),
        "svd_tuned",
        "svd_base",
        *svd,
        long=True,
    )
    bind("bundle_describe", lambda pick, *fields: page.bundles.describe(pick, *fields), *CARD_FIELDS)
    bind("bundle_export", lambda pick: page.bundles.export(pick))
    bind("bundle_verify", lambda pick: page.bundles.verify(pick).said)


def _cut(rank: float | None, rule: str, value: float | None, conv_rank: float | None) -> RankCut:
    """As the fields say; an empty one is 0."""
    from lib_pivotal.bundle.low_rank import RankCut  # here: the page is built without torch

    return RankCut(int(rank or 0), SVD_RULES[rule], float(value or 0), int(conv_rank or 0))


def _ranks(rank: int | None) -> Any:
    """The slider's range: below the file's rank."""
    most = max((rank or 1) - 1, 1)
    return gr.update(maximum=max(most, 2), value=max(most // 2, 1))


def _name_note(bundles: BundleController, pick: str, embedding: str, new: str) -> str:
    """What the checker says of a new name, while it is typed."""
    if not new or not pick:
        return ""
    try:
        issues = bundles.name_issues(pick, embedding, new)
    except (PivotalError, OSError) as error:
        return message(sentence(error))
    good = [] if any(issue.level != "info" for issue in issues) else [message(f"{new} is a good name", "ok")]
    told = [message(f"{issue.reason}. {issue.remedy}".strip(), issue.level) for issue in issues]
    return "".join([*good, *told])


def _card_fields(summary: BundleSummary) -> dict[str, Any]:
    """The card's fields as the file has them."""
    from lib_pivotal.bundle.card import card_of  # here: the page is built without torch

    card = card_of(summary)
    values = (card.description, card.licence, card.weights.get("unet"), card.weights.get("te"), card.cfg)
    return dict(zip(CARD_FIELDS, values, strict=True))


def _shown(page: Page, pick: str, query: str, said: str = "") -> Shown:
    found = shown(page.bundles, pick, query) | {"bundle_said": said}
    if found["bundle_card"] != CHOOSE:
        found |= _card_fields(page.bundles.summary(pick))
    return page.shown(**found)


def shown(bundles: BundleController, pick: str, query: str) -> dict[str, Any]:
    """New values of the page's parts for a chosen file (or none), by name."""
    try:
        summaries, names = bundles.listing()
    except (PivotalError, OSError) as error:
        return {"bundle_list": message(sentence(error)), **NONE_CHOSEN}
    chosen = pick if pick in names else ""
    files = bundles_html.bundle_list(summaries, names, query=query or "", chosen=chosen)
    if not chosen:
        return {"bundle_list": files, **NONE_CHOSEN}
    summary = summaries[names.index(chosen)]
    embeddings = [embedding.name for embedding in summary.embeddings]
    others = [name for name in names if name != chosen]
    return {
        "bundle_list": files,
        "bundle_card": bundles_html.bundle_card(summary, chosen),
        "bundle_work": gr.update(visible=True),
        "bundle_first_ranks": _ranks(summary.rank),
        "bundle_word": gr.update(choices=embeddings, value=embeddings[0] if embeddings else None),
        "bundle_others": gr.update(choices=others, value=[]),
    }
