"""The table of the battery: every kind of network in each of its forms. A new kind adds its rows here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One form of a kind on the toy of `conftest.py`.

    `std`: how far the battery moves every weight. `exact`: forward and merged agree to this factor of the type's usual
    difference; a product of many factors has larger numbers than its layer. `alpha_factor`: what twice the alpha
    multiplies the change by; None where that is not one number. `whole_gradient`: nothing is held constant in it.
    `limits_change`: a max norm is that of the change. `draws`: a forward pass in training is a part of the network
    drawn at random, so that the battery looks at it out of training. `file_of`: whose file it is.
    """

    algorithm: str
    options: Mapping[str, Any] = field(default_factory=dict)
    rank: int = 3
    std: float = 0.2
    exact: float = 1.0
    alpha_factor: float | None = 2.0
    whole_gradient: bool = True
    limits_change: bool = True
    draws: bool = False
    file_of: str = ""


DORA = {"weight_decompose": True}
HELD = {"constraint": 0.2, "rescale": True}

ROWS: dict[str, Row] = {
    "lora": Row("lora"),
    "lora-fa": Row("lora", {"freeze_down": True}, std=0.5),
    "rslora": Row("lora", {"rank_stabilised": True}),
    "lora-tucker": Row("lora", {"tucker": True}, std=0.5, exact=2),
    "pissa": Row("lora", {"start": "pissa"}, limits_change=False, file_of="lora", alpha_factor=None),
    "olora": Row("lora", {"start": "olora"}, limits_change=False, file_of="lora"),
    "dora": Row("dora", alpha_factor=None, whole_gradient=False, limits_change=False),
    "dora-tucker": Row("dora", {"tucker": True}, std=0.5, alpha_factor=None, whole_gradient=False, limits_change=False),
    "loha": Row("loha", rank=2, exact=5),
    "loha-wide": Row("loha", rank=6, exact=5),
    "loha-tucker": Row("loha", {"tucker": True}, rank=2, exact=5),
    "loha-dora": Row("loha", DORA, rank=2, exact=5, alpha_factor=None, whole_gradient=False, limits_change=False),
    "lokr": Row("lokr", {"factor": 2}, rank=1),
    "lokr-both": Row("lokr", {"factor": 4, "decompose_both": True}, rank=1, std=0.5),
    "lokr-whole": Row("lokr", {"factor": 2, "full_matrix": True}, alpha_factor=1.0),
    "lokr-tucker": Row("lokr", {"factor": 2, "tucker": True}, rank=1, std=0.5, exact=3),
    "lokr-dora": Row(
        "lokr", {"factor": 2, **DORA}, rank=1, alpha_factor=None, whole_gradient=False, limits_change=False
    ),
    "oft": Row("oft", rank=2, std=0.5, exact=3, alpha_factor=1.0, limits_change=False),
    "coft": Row("oft", HELD, rank=2, std=0.5, exact=3, alpha_factor=1.0, limits_change=False),
    "boft": Row("boft", rank=6, std=0.3, exact=3, alpha_factor=1.0, limits_change=False),
    "boft-held": Row("boft", HELD, rank=6, exact=3, alpha_factor=1.0, limits_change=False),
    "glora": Row("glora", exact=3, alpha_factor=1.0),
    "dylora": Row("dylora", {"unit": 1}, draws=True, file_of="lora"),
    "ia3": Row("ia3", std=0.5, alpha_factor=1.0),
    "ia3-in": Row("ia3", {"on_input": "all"}, std=0.5, alpha_factor=1.0),
    "full": Row("full", alpha_factor=1.0),
    "norm": Row("norm", std=0.5, alpha_factor=1.0),
}
