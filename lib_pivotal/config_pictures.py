"""The settings of a run about pictures and captions: `Run.data` and `Run.regularisation`."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from lib_pivotal.config_schema import setting


@dataclass(frozen=True)
class DataConfig:
    """Pictures and captions."""

    folder: str = setting("", "Folder of pictures with captions.", unit="path")
    layout: str = setting(
        "auto",
        "What the folder is: found out, or one folder; a folder for each concept; kohya's `10_name`; kgrid's tree; a "
        "dataset file of kohya, HCP-Diffusion or OneTrainer; a zip or tar.",
        choices=("auto", "plain", "concepts", "kohya", "kgrid", "kohya_toml", "hcp", "onetrainer", "archive"),
    )
    captions_from: str = setting(
        "auto",
        "Where captions come from: caption files (.txt, .caption) first, then metadata (json, jsonl, csv, waifuc's), "
        "then names; or only one of them.",
        choices=("auto", "files", "metadata", "name"),
    )
    caption_lines: str = setting(
        "join",
        "Several lines in a caption file: one caption, alternatives of which one is sampled (then also those of "
        "a second "
        "file, .caption beside .txt), or the first line only.",
        choices="data.sources.source:Lines",
    )
    missing_caption: str = setting(
        "auto",
        "Caption of a picture that has none: its name (in kohya's folders the folder's), the concept, or nothing.",
        choices="data.captioning:MissingCaption",
    )
    name_words: str = setting(
        "",
        "Where a file's name is the caption: what of it is a word, as a regular expression, e.g. `[^_]+`; empty = all "
        'of it, `_` a space. In the web UI its "Filename word regex" counts where this is empty.',
    )
    name_join: str = setting(" ", 'What stands between such words (the web UI\'s "Filename join string").')
    duplicates: str = setting(
        "keep",
        "Pictures that are there twice: all count; equal files count once; also those that look the same count once.",
        choices="data.image_probes:Duplicates",
    )
    least_px: int = setting(
        32, "Pictures whose shorter side is below this are left out.", unit="px", minimum=1, maximum=4096
    )
    resolution_px: int = setting(
        512, "Training size: buckets have about its area.", unit="px", minimum=64, maximum=4096
    )
    bucketing: bool = setting(True, "Aspect-ratio buckets; off = square centre crops.")
    bucket_step_px: int = setting(64, "Bucket sides are multiples of this.", unit="px", minimum=8, maximum=256)
    upscale: bool = setting(True, "Small pictures are enlarged to the training size.")
    most_cropped: float = setting(
        0.25,
        "Largest share of a picture that is cut off; one that would lose more is shown whole, with a border that does "
        "not count. Only with buckets: square crops cut what they must.",
        minimum=0.0,
        maximum=1.0,
    )
    crop: str = setting(
        "centre",
        "Which part stays of a picture that is longer than its bucket. `face` needs a box: in a .json file beside the "
        "picture, or in the file name as kohya's face tool writes it.",
        choices="data.buckets:CropMode",
    )
    crops: int = setting(
        1,
        "How many cuts of each picture are kept and sampled from, where they differ (`random`, `face`, far and near).",
        minimum=1,
        maximum=64,
    )
    scale_augmentation: bool = setting(
        False,
        "Custom Diffusion's: cuts far away and close up, which the caption says (`very small`, `close up`); what lies "
        "around a far one does not count. Needs several cuts a picture.",
    )
    flip: bool = setting(
        False, "Mirror half of the samples; each embedding can opt out, for characters whose sides differ."
    )
    random_latent: bool = setting(True, "Sample latents from the autoencoder's distribution instead of using its mean.")
    cache_folder: str = setting("", "Keep latents on disk here; empty = in memory only.", unit="path")
    transparency: str = setting("white", "What stands behind transparent pixels.", choices="data.pictures:Transparency")
    masks: str = setting(
        "none",
        "Soft masks of the loss. linear: black 0 to white 1; hcp: black 0, grey 1, white 5; hcp_exact: as HCP does it, "
        "never scaled; cloneofsimo: with a temperature.",
        choices="data.masks:mask_names",
    )
    mask_normalise: bool = setting(True, "Scale each mask to a mean of 1 (linear and hcp).")
    mask_minimum: float = setting(
        0.0,
        "Weight of what is masked away (linear and hcp; OneTrainer's unmasked weight).",
        minimum=0.0,
        maximum=1.0,
    )
    mask_off: float = setting(
        0.0,
        "Chance that a sample is trained without its mask (OneTrainer's unmasked probability).",
        minimum=0.0,
        maximum=1.0,
    )
    mask_prior: float = setting(
        0.0,
        "Weight of a second loss where masks are dark: there the network should change nothing (OneTrainer's masked "
        "prior preservation). Each step takes about a third longer; 0 = off.",
        minimum=0.0,
        maximum=10.0,
        good_range="0.1-1",
    )
    mask_temperature: float = setting(
        1.0, "Power of cloneofsimo's masks: above 1 sharper, below 1 softer.", minimum=0.0, maximum=100.0
    )
    shuffle_tags: bool = setting(True, "Shuffle the tags of a caption for each sample.")
    keep_first: int = setting(0, "This many first tags stay in front.", unit="tags", minimum=0, maximum=100)
    keep_separator: str = setting("|||", "What stands before it in a caption stays in front, behind a second one last.")
    tag_dropout: float = setting(
        0.0, "Chance that a tag is left out; names of embeddings never are.", minimum=0.0, maximum=1.0
    )
    tag_dropout_classes: tuple[str, ...] = setting(
        (),
        "Chances of their own, one per line: `clothes = 0.3`. Classes: people, character, clothes, expression, "
        "background, quality, other; or a regular expression, `/hat$/ = 0.5`. The first that fits counts.",
    )
    tag_dropout_mode: str = setting(
        "each",
        "each: every tag by itself; all: all tags that are not kept in front go together; rising: later tags more "
        "often, the last one with the full chance (OneTrainer's FULL and RANDOM WEIGHTED).",
        choices="data.caption_chain:DropMode",
    )
    caption_dropout: float = setting(0.0, "Chance that the whole caption is left out.", minimum=0.0, maximum=1.0)
    caption_dropout_epochs: int = setting(
        0, "Every N epochs, one passes without captions; 0 = never.", unit="epochs", minimum=0, maximum=1000
    )
    bare_caption: float = setting(
        0.0,
        "Chance that the caption is replaced by the bare name of its embeddings (eden trains so with 0.1): the words "
        "of a caption then have no part in what the picture shows.",
        minimum=0.0,
        maximum=1.0,
        good_range="0.05-0.2",
    )
    bare_caption_class: bool = setting(
        False, "The class stands beside a bare name: `hana, 1girl`. Which one, each embedding's class says."
    )
    caption_warmup_steps: float = setting(
        0.0, "Tags come in one by one over N steps; below 1 a fraction of the run; 0 = off.", minimum=0.0
    )
    caption_warmup_tags: int = setting(1, "Tags that are there from the first step.", unit="tags", minimum=1)
    max_tags: int = setting(0, "At most N tags per caption, the first ones; 0 = all.", unit="tags", minimum=0)
    max_tokens: int = setting(
        0, "Longer captions lose their last tags, never an embedding; 0 = chunks of 75, as many as needed.", minimum=0
    )
    emphasis: bool = setting(True, "`(x:1.2)` weighs; off = brackets are letters, as in `saber (fate)`.")
    prefix: str = setting("", "Put before every caption.")
    suffix: str = setting("", "Put after every caption.")
    templates: tuple[str, ...] = setting((), "Templates, e.g. `a photo of {word}, {caption}`; one is chosen each time.")
    word_lists: tuple[str, ...] = setting(
        (), "Lists for templates and captions, one per line: `who = girl | woman` fills `{who}` and `__who__`."
    )
    wildcards: bool = setting(False, "`{a|b}` in captions: one is chosen each time; `__name__` chooses from a list.")
    wildcard_folder: str = setting("", "Folder of lists for `__name__`: `name.txt`, one choice per line.", unit="path")
    caption_fields: tuple[str, ...] = setting(
        (),
        "Captions made of their metadata's fields, one per line in their order, with a chance: `characters = 1`. "
        "Fields: npeople, characters, copyright, type, artist, rating, crop, tags. Empty = captions as they are.",
    )
    prune_mode: str = setting(
        "character_core",
        "What is pruned from captions of embeddings with Prune tags: nothing, overlapping tags, every tag of "
        "looks, or core tags.",
        choices="data.pruning:PruneMode",
    )
    core_rule: str = setting(
        "narugo",
        "Which tags are core tags: narugo's rule leaves clothes to the captions, kgrid's counts pictures of one.",
        choices="data.tags:CoreRule",
    )
    core_threshold: float = setting(
        0.0, "Share of captions that makes a tag core; 0 = the rule's own (0.45, 0.4).", minimum=0.0, maximum=1.0
    )
    core_feature_threshold: float = setting(
        0.35, "Narugo: the share for tags of looks (hair, eyes, ...).", minimum=0.0, maximum=1.0
    )
    drop_difficulty: int = setting(
        0,
        "Only tags below this difficulty are pruned: 1 hair and eyes, 2 also ears, horns, marks, 3 all; "
        "0 = the rule's own (narugo 3, kgrid 2).",
        minimum=0,
        maximum=3,
    )
    most_vectors: int = setting(
        16,
        "Vectors that an embedding may get for its core tags, each of them whole, and the random ones; the rarest tags "
        "are left out first.",
        unit="vectors",
        minimum=1,
        maximum=75,
    )
    random_vectors: int = setting(
        4, "Random vectors behind the core tags, for what no tag says.", unit="vectors", minimum=0, maximum=75
    )
    balance: str = setting(
        "repeats",
        "How often pictures are sampled: by the folders' repeats; all branches of the folder tree alike (kgrid); "
        "all embeddings alike.",
        choices="data.balance:Balance",
    )
    balance_weights: tuple[str, ...] = setting(
        (),
        "Tree: sampling weights of folders, one per line: `fanart = 2` or a pattern, `*/2_characters = 0.5`; "
        "others are 1.",
    )
    parts: tuple[PartConfig, ...] = setting(
        (),
        "Settings of a part of the pictures, one part per line: which pictures, then what they have of their own, "
        "`red/* | shuffle_tags = false | keep_first = 2`. The first that fits counts.",
    )


def _own(name: str) -> Any:
    """A setting of the whole run that a part may have of its own; None: as the run's."""
    return field(default=None, metadata=DataConfig.__dataclass_fields__[name].metadata)


@dataclass(frozen=True)
class PartConfig:
    """What a part of the pictures has of its own: a concept, an image type, a folder. Names as in `DataConfig`."""

    applies_to: str = setting(
        "", "Which pictures: `concept:NAME`, `type:IMAGE TYPE`, or a pattern of paths such as `fanart/*`."
    )
    loss_weight: float = setting(1.0, "Weight of these pictures' loss.", minimum=0.0, maximum=100.0)
    shuffle_tags: bool | None = _own("shuffle_tags")
    keep_first: int | None = _own("keep_first")
    keep_separator: str | None = _own("keep_separator")
    tag_dropout: float | None = _own("tag_dropout")
    tag_dropout_classes: tuple[str, ...] | None = _own("tag_dropout_classes")
    tag_dropout_mode: str | None = _own("tag_dropout_mode")
    caption_dropout: float | None = _own("caption_dropout")
    caption_dropout_epochs: int | None = _own("caption_dropout_epochs")
    caption_warmup_steps: float | None = _own("caption_warmup_steps")
    caption_warmup_tags: int | None = _own("caption_warmup_tags")
    wildcards: bool | None = _own("wildcards")
    templates: tuple[str, ...] | None = _own("templates")
    flip: bool | None = _own("flip")
    crop: str | None = _own("crop")
    crops: int | None = _own("crops")
    transparency: str | None = _own("transparency")
    masks: str | None = _own("masks")

    def over(self, data: DataConfig) -> DataConfig:
        """The run's settings with this part's own over them."""
        own = {item.name: getattr(self, item.name) for item in fields(self)[2:]}
        return replace(data, **{name: value for name, value in own.items() if value is not None})


@dataclass(frozen=True)
class RegularisationConfig:
    """Pictures that keep the model as it was, trained in the same steps."""

    folder: str = setting(
        "",
        "Folder of pictures of the class of the embeddings (`1girl`), with captions that do not name them.",
        unit="path",
    )
    weight: float = setting(1.0, "Weight of their mean loss.", minimum=0.0, maximum=100.0, good_range="0.1-1")
    batch_size: int = setting(
        0,
        "Pictures of this folder in each micro-batch; 0 = by narugo's rule: the shorter the run, the more, 1 to 16.",
        minimum=0,
        maximum=1024,
    )
    target: str = setting(
        "picture",
        "What they are trained towards: the picture itself, or what the model predicts without the network (prior).",
        choices="data.mixing:ClassTarget",
    )
    preservation: float = setting(
        0.0,
        "Weight of a second loss on the run's own pictures, embeddings replaced by the class: there the network should "
        "change nothing. No folder needed; each step takes about twice as long. 0 = off.",
        minimum=0.0,
        maximum=100.0,
        good_range="0.1-1",
    )
    class_text: str = setting(
        "",
        "The class in the model's own words, e.g. `1girl`, which is also the caption of class pictures that have none; "
        "an embedding may have its own. Empty = the tags of each embedding's init text.",
    )
    prompts: tuple[str, ...] = setting(
        (), "Prompts by which the loaded checkpoint makes class pictures into the folder, in turn."
    )
    negative_prompt: str = setting("", "Negative prompt of class pictures.")
    count: int = setting(200, "How many class pictures are made.", unit="pictures", minimum=1, maximum=100_000)
