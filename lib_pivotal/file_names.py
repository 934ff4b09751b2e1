"""What a file that the project writes may be called: one rule for page, API, command line, importers and torchrun.

A name is good where every file system takes it, also with what a run puts behind it, and where the web UI can call it
as `<lora:NAME:1>`. v1.10.1 takes a tag apart at `>`, `:` and `=` (modules/extra_networks.py, `ExtraNetworkParams`),
hides what follows `#` (modules/processing_scripts/comments.py), and drops `,` from the infotext's list of hashes
(extensions-builtin/Lora/extra_networks_lora.py). Names of embeddings are narrower still: `bundle.format`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from lib_pivotal.errors import FileNameError
from lib_pivotal.files import is_taken

MOST_BYTES = 200
"""File systems take 255 bytes. A run puts at most 39 around its name, `.NAME-10000000.safetensors.<random>.tmp`; the
rest is room for what is made of the file later (`-without-te-unet-words-2.safetensors`)."""
LIVE_NAME = "pivotal-live"
"""The file that shows a run while it trains: it is written and deleted without asking."""
REMEDY = f"Use letters, digits, blanks inside, and _ - + . ( ), without folders; at most {MOST_BYTES} bytes."

_IN_PATHS = '/\\:<>"|?*'
_IN_TAGS = {",": "the list of hashes in a picture's text", "#": "a comment in a prompt", "=": "an argument of a tag"}
_INVISIBLE = ("Cc", "Cf", "Cn", "Cs", "Zl", "Zp")
_DEVICES = re.compile(r"(con|prn|aux|nul|clock\$|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])", re.IGNORECASE)


def name_reasons(name: str) -> list[str]:
    """Every reason why no file may be called `name` (without its ending); empty where one may."""
    if not name.strip():
        return ["is empty"]
    reasons = []
    if odd := [sign for sign in _IN_PATHS if sign in name]:
        reasons.append(f"has {_told(odd)}, which no file's name may have")
    reasons += [f"has {sign!r}, which begins {what}" if sign == "#" else f"has {sign!r}, which parts {what}"
                for sign, what in _IN_TAGS.items() if sign in name]  # fmt: skip
    if odd := sorted({sign for sign in name if _is_invisible(sign)}):
        reasons.append(f"has {_told(odd)}, which nobody sees or can type")
    if name.strip(" .") != name:
        reasons.append("begins or ends with a dot or a blank")
    if _DEVICES.fullmatch(name.partition(".")[0].strip()):
        reasons.append("is the name of a device on Windows")
    if name.lower() == LIVE_NAME:
        reasons.append("is the name of the file that shows a run while it trains")
    if (length := len(name.encode("utf-8", "surrogatepass"))) > MOST_BYTES:
        reasons.append(f"has {length} bytes, at most {MOST_BYTES} are allowed")
    return reasons


def checked_name(name: str, what: str) -> str:
    """`name`, where a file may be called so; `what` it names ("the new file") stands in front of the sentence.

    Raises:
        FileNameError: with every reason.
    """
    if reasons := name_reasons(name):
        shown = name if len(name) <= 60 else f"{name[:60]}..."
        raise FileNameError(f"{what} cannot be called {shown!r}: it {'; it '.join(reasons)}. {REMEDY}")
    return name


def legal_file_name(text: str) -> str:
    """The legal name that is nearest to `text`; empty where nothing is left of it."""
    signs = ("_" if sign in _IN_PATHS or sign in _IN_TAGS else " " if _is_invisible(sign) else sign for sign in text)
    name = _cut(" ".join("".join(signs).split()))
    if not name.strip("_ ."):
        return ""
    return _cut(f"_{name}") if name_reasons(name) else name


def refuse_taken(paths: Iterable[Path], *, overwrite: bool, remedy: str = "") -> None:
    """Say that files are there already, unless they may be replaced.

    Raises:
        FileNameError: which files, and what to do.
    """
    taken = [] if overwrite else [path for path in paths if is_taken(path)]
    if taken:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        told = remedy or "Choose another name, or say that it may be replaced (overwrite)."
        raise FileNameError(f"{taken[0]}{more}: there is a file of this name already. {told}")


def refuse_output(path: Path, *, overwrite: bool) -> None:
    """Say before the work that a file could not be written: it is there already, or its folder is not.

    Raises:
        FileNameError: what to do.
    """
    refuse_taken([path], overwrite=overwrite)
    if not path.parent.is_dir():
        raise FileNameError(
            f"{path.parent}: there is no such folder to write {path.name} into. Make it, or name another."
        )


def _cut(name: str) -> str:
    return name.encode("utf-8")[:MOST_BYTES].decode("utf-8", "ignore").strip(" .")


def _told(signs: Iterable[str]) -> str:
    return " ".join(repr(sign) if sign.isprintable() else f"U+{ord(sign):04X}" for sign in signs)


def _is_invisible(sign: str) -> bool:
    return unicodedata.category(sign) in _INVISIBLE or (sign.isspace() and sign != " ")
