"""The kinds of network, one file each; `ALL` lists them in the order in which they are offered."""

from __future__ import annotations

from lib_pivotal.networks.algorithm import Algorithm

from . import boft, dora, dylora, full, glora, ia3, loha, lokr, lora, norm, oft

ALL: tuple[Algorithm, ...] = (
    lora.ALGORITHM,
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
