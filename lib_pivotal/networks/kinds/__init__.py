"""The kinds of network, one file each (LoRA, with its forms, four); `ALL` lists them in the order of the menu."""

from __future__ import annotations

from lib_pivotal.networks.algorithm import Algorithm

from . import boft, dora, dylora, full, glora, ia3, loha, lokr, lora_forms, norm, oft

ALL: tuple[Algorithm, ...] = (
    lora_forms.ALGORITHM,
    dora.ALGORITHM,
    loha.ALGORITHM,
    lokr.ALGORITHM,
    oft.ALGORITHM,
    boft.ALGORITHM,
    glora.ALGORITHM,
    dylora.ALGORITHM,
    ia3.ALGORITHM,
    full.ALGORITHM,
    norm.ALGORITHM,
)
