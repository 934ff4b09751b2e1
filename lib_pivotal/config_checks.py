"""Faults of a run that concern more than one setting, or the inside of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lib_pivotal.embedding_names import check_embedding_name
from lib_pivotal.errors import Fault
from lib_pivotal.file_names import REMEDY, name_reasons
from lib_pivotal.plain_json import parse_json

if TYPE_CHECKING:
    from lib_pivotal.config import DataConfig, Run, ScheduleConfig

VARIED_CROPS = ("random", "face")
"""Cuts of which a picture has several that differ."""


def check_consistency(run: Run) -> list[Fault]:
    """Faults that concern more than one setting."""
    faults = [*name_faults(run.name), *_check_embeddings(run)]
    network, schedule, noise = run.network, run.schedule, run.noise
    frozen = run.start.freezes_network()
    trains_unet = network.trains("unet") and not frozen
    trains_te = (network.trains("te") or network.trains("te2")) and not frozen
    if not run.embeddings and not trains_unet and not trains_te:
        faults.append(
            Fault("embeddings", [], "nothing is trained", "Add an embedding or choose layers for the network.")
        )
    if noise.timestep_min >= noise.timestep_max:
        faults.append(
            Fault("noise.timestep_min", noise.timestep_min, f"must be below noise.timestep_max ({noise.timestep_max})")
        )
    low, high = (max(noise.timestep_min, network.timestep_min), min(noise.timestep_max, network.timestep_max))
    if low >= high:
        remedy = f"The noise has timesteps from {noise.timestep_min} to {noise.timestep_max}."
        problem = "leaves the network no timestep to be trained at"
        faults.append(Fault("network.timestep_max", network.timestep_max, problem, remedy))
    faults += _check_share(run, trains_network=trains_unet or trains_te)
    if not schedule.epochs:  # else the length is known when the pictures are
        faults += check_length(schedule)
    faults += _check_pictures(run.data) + _check_validation(run)
    kept = run.regularisation
    if (kept.folder or kept.preservation) and not trains_unet and not trains_te:
        field = "regularisation.folder" if kept.folder else "regularisation.preservation"
        problem = "needs a network: pictures without the embeddings teach them nothing"
        faults.append(Fault(field, kept.folder or kept.preservation, problem, "Choose a network, or leave it out."))
    return faults + _check_lines(run)


def _check_share(run: Run, *, trains_network: bool) -> list[Fault]:
    """An embeddings-only share where embeddings or the network are never trained beside each other."""
    schedule = run.schedule
    if not schedule.embeddings_only_share:
        return []
    field, share = "schedule.embeddings_only_share", schedule.embeddings_only_share
    if not run.embeddings or not trains_network:
        return [Fault(field, share, "needs embeddings and a network, both trained", "Set it to 0.")]
    if schedule.phases == "two_phase" and schedule.continued_embedding_lr_factor == 0:
        remedy = "Set schedule.continued_embedding_lr_factor above 0, or the share to 0."
        return [Fault(field, share, "has no use: the embeddings are frozen after the first phase", remedy)]
    return []


def check_length(schedule: ScheduleConfig) -> list[Fault]:
    """Faults of what must fit into `max_steps`."""
    faults = []
    if schedule.warmup_steps >= max(schedule.max_steps, 1) and schedule.warmup_steps >= 1:
        faults.append(
            Fault("schedule.warmup_steps", schedule.warmup_steps, f"must be below max_steps ({schedule.max_steps})")
        )
    if schedule.phases == "two_phase" and not 0 < schedule.embeddings_steps < schedule.max_steps:
        faults.append(
            Fault(
                "schedule.embeddings_steps",
                schedule.embeddings_steps,
                f"two-phase needs it between 1 and max_steps - 1 ({schedule.max_steps - 1})",
            )
        )
    if schedule.first_phase_ends_itself and schedule.embeddings_least_steps > schedule.embeddings_steps:
        problem = f"must not be above embeddings_steps ({schedule.embeddings_steps}), the most"
        faults.append(Fault("schedule.embeddings_least_steps", schedule.embeddings_least_steps, problem))
    return faults


def name_faults(name: str) -> list[Fault]:
    """Why no file may have a run's name; an empty one stands for the usual name."""
    return [Fault("name", name, "; it ".join(reasons), REMEDY)] if name and (reasons := name_reasons(name)) else []


def _check_pictures(data: DataConfig) -> list[Fault]:
    """Cuts of a picture that would all be the same, or ways to show it of which it would get one."""
    if data.scale_augmentation and data.crops < 2:
        remedy = "Use 8 or so, or turn far and near cuts off."
        return [Fault("data.crops", data.crops, "is one size a picture for ever, with scale_augmentation", remedy)]
    if any(part.crop in VARIED_CROPS for part in data.parts):
        return []
    if data.crops > 1 and data.crop not in VARIED_CROPS and not data.scale_augmentation:
        remedy = "Choose random or face, or 1."
        return [Fault("data.crops", data.crops, f"would be the same cut each time, with crop = {data.crop}", remedy)]
    return []


def _check_validation(run: Run) -> list[Fault]:
    """Validation without pictures, and an early end without validation."""
    validation = run.validation
    if not validation.every_steps:
        if not validation.patience:
            return []
        remedy = "Set validation.every_steps, or patience to 0."
        return [Fault("validation.patience", validation.patience, "needs validations", remedy)]
    if validation.share or validation.folder.strip():
        return []
    remedy = "Hold out a share such as 0.1, or give a folder."
    return [Fault("validation.share", validation.share, "leaves no picture to validate on", remedy)]


def _check_parts(data: DataConfig) -> list[Fault]:
    """A part that means no picture, or lines of its own that cannot be read."""
    faults = []
    for index, part in enumerate(data.parts):
        field = f"data.parts.{index}"
        if not part.applies_to.strip():
            remedy = "Write `concept:NAME`, `type:IMAGE TYPE`, or a pattern of paths."
            faults.append(Fault(f"{field}.applies_to", part.applies_to, "names no pictures", remedy))
        faults += _number_faults(f"{field}.tag_dropout_classes", part.tag_dropout_classes or (), highest=1.0)
    return faults


def _number_faults(field: str, lines: Sequence[str], *, highest: float) -> list[Fault]:
    reasons = ((line, number_line_fault(line, highest=highest)) for line in lines)
    remedy = "Write `name = number`, one per line."
    return [Fault(field, line, reason, remedy) for line, reason in reasons if reason is not None]


def _check_lines(run: Run) -> list[Fault]:
    """Settings that hold a line of their own for each thing: `name = value`."""
    data = run.data
    faults = _check_parts(data)
    try:
        re.compile(data.name_words)
    except re.error as error:
        faults.append(Fault("data.name_words", data.name_words, f"is not a regular expression: {error}"))
    for field, lines, highest in (
        ("tag_dropout_classes", data.tag_dropout_classes, 1.0),
        ("caption_fields", data.caption_fields, 1.0),
        ("balance_weights", data.balance_weights, float("inf")),
    ):
        faults += _number_faults(f"data.{field}", lines, highest=highest)
    faults += _option_faults("schedule.optimizer_options", run.schedule.optimizer_options)
    for line in data.word_lists:
        name, equals, values = line.partition("=")
        if not (name.strip() and equals and values.strip()):
            faults.append(Fault("data.word_lists", line, "cannot be read", "Write `name = first | second`."))
    return faults


def option_lines(lines: Sequence[str]) -> dict[str, Any]:
    """`name = JSON value` lines that `check_run` found sound."""
    pairs = (line.partition("=") for line in lines)
    return {name.strip(): parse_json(value) for name, _, value in pairs}


def _option_faults(field: str, lines: Sequence[str]) -> list[Fault]:
    faults = []
    for line in lines:
        name, _, value = line.partition("=")
        try:
            parse_json(value)
        except ValueError:
            name = ""
        if not name.strip().isidentifier():
            faults.append(Fault(field, line, "cannot be read", "Write `name = value`, e.g. `betas = [0.9, 0.99]`."))
    return faults


def number_lines(lines: Sequence[str]) -> tuple[tuple[str, float], ...]:
    """`name = number` lines that `check_run` found sound, in their order."""
    pairs = (line.rpartition("=") for line in lines)
    return tuple((name.strip(), float(value)) for name, _, value in pairs)


def number_line_fault(line: str, *, highest: float) -> str | None:
    """Why a line is no `name = number`; None if it is one."""
    name, _, value = line.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        return "cannot be read"
    if not name.strip():
        return "has no name"
    if name.strip().startswith("/") and name.strip().endswith("/"):
        try:
            re.compile(name.strip()[1:-1])
        except re.error as error:
            return f"is not a regular expression: {error}"
    return None if 0 <= number <= highest else f"its number must be from 0 to {highest:g}"


def _check_embeddings(run: Run) -> list[Fault]:
    faults: list[Fault] = []
    data = run.data
    if data.random_vectors >= data.most_vectors:
        problem = f"leaves core tags no vector of data.most_vectors ({data.most_vectors})"
        faults.append(Fault("data.random_vectors", data.random_vectors, problem, "Use less of them."))
    seen: set[str] = set()
    for index, embedding in enumerate(run.embeddings):
        field = f"embeddings.{index}.name"
        reasons = check_embedding_name(embedding.name)
        if not reasons and run.saving.embedding_files:
            reasons = name_reasons(embedding.name)
        faults += [Fault(field, embedding.name, reason) for reason in reasons]
        if embedding.name.lower() in seen:
            faults.append(Fault(field, embedding.name, "is used twice", "Names must differ by more than case."))
        seen.add(embedding.name.lower())
    for index, embedding in enumerate(run.embeddings):
        parent = embedding.form_of.lower()
        if parent and (parent not in seen or parent == embedding.name.lower()):
            field = f"embeddings.{index}.form_of"
            faults.append(
                Fault(field, embedding.form_of, "is not another embedding of this run", "Name one of them, or none.")
            )
    return faults + _check_embedding_rules(run)


def _check_embedding_rules(run: Run) -> list[Fault]:
    """A start that a control would take away again, and rules that need to know what an embedding is."""
    common, faults = run.embeddings_common, list[Fault]()
    if common.start == "cross_init" and common.control != "none" and common.norm_target != "initial":
        problem = "would take the norms of cross_init away, which are those of the text encoder's output"
        remedy = "Use initial, or control none."
        faults.append(Fault("embeddings_common.norm_target", common.norm_target, problem, remedy))
    for line in common.editability_prompts:
        if line.count("{word}") != 1:
            field, problem = "embeddings_common.editability_prompts", "does not have `{word}` once"
            faults.append(Fault(field, line, problem, "Write it where the embedding stands."))
    if common.editability == "none" or run.regularisation.class_text.strip():
        return faults
    for index, embedding in enumerate(run.embeddings):
        says_nothing = embedding.init_text.strip().lower() in ("", "random", "zero")
        if says_nothing and not embedding.prune and not embedding.class_text.strip():
            problem = f"is needed by editability = {common.editability}: nothing says what {embedding.name!r} is"
            faults.append(Fault(f"embeddings.{index}.class_text", "", problem, "Write e.g. `1girl`, or an init text."))
    return faults
