"""Tooltips of everything on the page that is no setting of a run; those of settings come from `config.py`.

Fields with room for it say it by gradio's `info=` instead. `tests/ui/test_tooltips.py` finds what says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lib_pivotal.ui.form import PREFIX, TABLE, help_text

TOOLTIPS: Mapping[str, str] = MappingProxyType(
    {
        # Data
        "scan": "Reads the folder. What you changed by hand stays.",
        "anew": "Proposes the embeddings from the captions again, as for a new folder; manual changes are lost.",
        "add_word": "A row for an embedding that the captions do not name yet.",
        "gallery_filter": "Only pictures for which all parts hold: text of the caption or the file's name, word:NAME, "
        "tag:TAG, problem:NUMBER; a minus in front of a part excludes.",
        "caption_text": "The caption as it will stand in the file. Nothing is written before Save. Ctrl+Enter saves, "
        "Page Up and Page Down go to the picture before and after.",
        "caption_backup": "Copies the file that is there to NAME.txt.bak first. An older copy is not replaced.",
        "caption_save": "Writes the caption file (Ctrl+Enter).",
        "caption_undo": "Shows the file as it is; what you typed is dropped.",
        "caption_close": "Close (Escape). Not while there are changes that are not saved.",
        "caption_previous": "The picture before in the filter (←, Page Up)",
        "caption_next": "The next picture in the filter (→, Page Down)",
        "writing_look": "Compares each caption file with its caption as it is trained. Nothing is written.",
        "writing_write": "Writes the files of the preview, each completely or not at all. Can be undone.",
        "writing_cancel": "Closes the preview. Nothing is written.",
        "writing_back": "Gives the files that were written last their contents of before, byte for byte; a file that "
        "was changed since is left alone.",
        "write_captions": "Writes NAME.txt beside each picture that has no caption. A caption that is there stays.",
        "mask_editor": "Paint over what is to count more or less.",
        "mask_shown": "The mask that the next scan finds, over its picture.",
        "mask_save": "Adds the strokes to the mask file of this picture.",
        "mask_new": "Replaces the existing mask by these strokes.",
        "mask_gone": "Deletes the painted mask.",
        # Train
        "preset": "A starting point: replaces the settings that it names and keeps the rest.",
        "balance": "Sets phases, vectors, norms and the embeddings-only share together, in the fields below.",
        "overwrite": "Lets this run replace files of its name. Holds for one start.",
        "train": "Checks the settings, borrows the loaded checkpoint and trains.",
        "queue_add": "Checks the settings and puts the run at the end of the queue, which trains one after another.",
        "queue_pause": "Begins no further run, or resumes. A run that is training is not touched.",
        "queue_clear": "Takes out every finished, failed or skipped run. Files stay.",
        "finished_steps": "How long the run shall be altogether, with the steps that it has.",
        "go_further": "Continues from the last saved state to that length; LR schedulers follow the new length.",
        "preflight": "Trains a few steps on the loaded checkpoint and keeps nothing of them.",
        "stop": "Ends after this step, and saves the file and the state: the run can be continued.",
        "pause": "Waits after this step; the checkpoint is free for pictures meanwhile.",
        "save_now": "Writes the file and the state after this step.",
        "sample_now": "Makes the parts grid after this step.",
        "checkpoint": "Loads the checkpoint that the run was started with, so that it can continue.",
        "live": "Pictures made during the run may use the network as it is at that moment.",
        "class_pictures": "Makes those that are missing in the folder of class pictures. Stop ends it.",
        "load_bundle_now": "Replaces the settings on the page.",
        "preset_overwrite": "Lets Save replace a preset of that name. Holds for one click.",
        "preset_save": "Saves the settings on the page, without the folder, the name and the embeddings.",
        "upload": "Takes over a file of settings. Of another trainer's file a report tells what became of each key.",
        "download_make": "Writes the settings on the page as a file for the command line and the API.",
        "download": "The settings on the page.",
        "keep": "Copies the file of this step into the LoRA folder.",
        "resume_run": "Continues from the newest saved state.",
        "steps_rank": "Ranks the kept steps by what was measured of them, and by scorers that look at their samples.",
        "steps_measure": "Measures drift, obedience of other tags and diversity of each step on the loaded checkpoint.",
        "report": "Makes a zip of versions, settings, log and last traceback, without user names and paths.",
        "report_file": "The zip, to attach to an issue.",
        # Bundles
        "bundle_filter": "Only files for which all parts hold; separate them with commas.",
        "bundle_reload": "Reads the LoRA folder again.",
        "bundle_word": "The embedding to rename or remove.",
        "bundle_new": "Lower-case letters, digits, _ and -; it begins and ends with a letter.",
        "bundle_adjust": "Writes a file with the embeddings as the tag adjusts them: no extension is needed then.",
        "bundle_rename": "Gives the embedding the new name, in this file.",
        "bundle_delete": "Takes the embedding out of this file.",
        "bundle_add": "Puts an embedding file into this file, under its own name.",
        "bundle_verify": "Reads every tensor and compares every hash.",
        "bundle_split": "Writes the network and each embedding as files of their own. This file stays.",
        "bundle_convert": "Writes the network in that layout. This file stays.",
        "bundle_cut": "Writes a copy with these ranks alone beside the file; they must be whole units of its training.",
        "bundle_strip": "Writes a copy without these parts beside the file.",
        "bundle_join": "Writes the new file beside this one. These files stay.",
        "card_description": "Markdown is fine. It stands in the file and on the web UI's card.",
        "card_licence": "A name or a link. It stands in the file.",
        "card_unet": "Recommended weight; a click on the web UI's card then writes it. Empty: none is recommended.",
        "card_te": "Recommended weight of the text encoder's part.",
        "card_cfg": "Recommended CFG scale.",
        "bundle_describe": "Writes the card into the file, a preview and the web UI's card text beside it. What you "
        "wrote there stays.",
        "bundle_export": "Writes a Markdown text with pictures, for Civitai or Hugging Face, into the folder of runs.",
        "svd_rank": "The most singular values that a layer keeps; 0 = any number, where a rule decides.",
        "svd_conv_rank": "The most of a 3x3 convolution; 0 = as the rank.",
        "svd_rule": "How many singular values each layer keeps, up to the rank.",
        "svd_value": "Of the rule: 0.6 for a share of the sum, 20 for sv_ratio, 0.9 for sv_fro.",
        "svd_tuned": "Extract: the checkpoint whose difference from the base becomes a LoRA.",
        "svd_name": "Of the file that is written, without ending.",
        "bundle_resize": "Writes the chosen LoRA at a lower rank. This file stays.",
        "bundle_to_lora": "Writes the chosen LoHa, LoKr, OFT or other network as a LoRA. This file stays.",
        "bundle_extract": "Writes the difference of the two checkpoints as a LoRA. It takes minutes.",
        # Compare
        "compare_weights": "Further rows with the whole file at these weights; separate them with commas.",
        "compare_size": "Width and height of each picture, in pixels.",
        "compare_steps": "Sampling steps of each picture.",
        "compare_cfg": "How closely pictures follow their prompt.",
        "compare_seed": "The first prompt's; each further prompt takes the next one.",
        "compare_draw": "Generates the pictures on the loaded checkpoint, one row a part.",
        "compare_sheet": "Full, U-Net only, text encoder only and embeddings only, a column an embedding and prompt.",
    }
)
"""Name of an element (its id without `pivotal_`) -> what it does."""


def tooltips() -> dict[str, str]:
    """Id of an element -> its tooltip, settings of a run as well: for `pivotal.js`."""
    return {row.elem_id: help_text(row.path) for row in TABLE} | {PREFIX + k: text for k, text in TOOLTIPS.items()}
