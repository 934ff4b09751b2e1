"""Small good files made hostile: blindly, byte by byte, and knowingly, by the structure of each kind of file.

`mutate(content, suffix, rng, others)` gives other bytes; the same generator state gives the same bytes. Nothing here is
executed. What a reader that executed a file would do is to make the file `MARKER` in the folder that it runs in.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

MARKER = "executed"
NAMES = (
    "../../outside", "/outside", "C:\\outside", "..", ".", "", " ", "a\0b", "a/b", "a\\b", "x" * 5000, "\ud800",
    "\u202egod", "CON", "nul.txt", "%s%n", "{0.__class__}", "<lora:x:1>", "犬", "e\u0301", "a.b", "__proto__", "a\nb",
)  # fmt: skip
NUMBERS = (
    0, -1, 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308, -0.0, 1e-320, float("inf"), float("-inf"),
    float("nan"),
)  # fmt: skip
DEEP = 100_000
LARGEST_BYTES = 4 * 2**20
COMMAND = f"touch {MARKER}"


_NO_STRUCTURE = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, OSError, EOFError, NotImplementedError, RuntimeError,
    struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What looking for structure raises in a file that has none left."""


def mutate(content: bytes, suffix: str, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """Other bytes for a file with this ending: one to three mutations, most of them by its structure."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        kinds = [blindly(others), *_KNOWINGLY.get(suffix, ())]
        kind = kinds[0] if rng.random() < 0.35 else rng.choice(kinds)
        try:
            content = kind(content, rng)
        except _NO_STRUCTURE:
            content = kinds[0](content, rng)  # an earlier mutation has left no structure
    return content[:LARGEST_BYTES]


# ---- bytes ----


def blindly(others: Sequence[bytes]) -> Callable[[bytes, random.Random], bytes]:
    """Mutations that know nothing; `others` are files to splice with."""

    def apply(content: bytes, rng: random.Random) -> bytes:
        data = bytearray(content or b"\0")
        at = rng.choice((rng.randrange(len(data)), rng.randrange(min(len(data), 200))))
        end = min(len(data), at + rng.choice((1, 2, 8, 64, 1000)))
        way = rng.randrange(9)
        if way == 0:
            return bytes(data[:at])
        if way == 1:
            for _ in range(rng.choice((1, 1, 4, 32))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        elif way == 2:
            data[at:end] = rng.randbytes(end - at)
        elif way == 3:
            other = rng.choice(list(others) or [content])
            data = bytearray(data[:at] + other[rng.randrange(len(other) + 1) :])
        elif way == 4:
            del data[at:end]
        elif way == 5:
            data[at:at] = data[at:end] * rng.choice((1, 2, 50))
        elif way == 6:
            data[at:end] = bytes(end - at) if rng.random() < 0.5 else b"\xff" * (end - at)
        elif way == 7:
            data[at:at] = rng.choice(
                (b"\xef\xbb\xbf", b"\0", b"\xff\xfe", b"\r", b"{", b"[" * 1000, b'"', b"\x80", b"-")
            )
        else:
            data = bytearray(rng.randbytes(rng.randrange(300)))
        return bytes(data)

    return apply


# ---- values of JSON ----


def hostile_value(rng: random.Random) -> Any:
    """Something that nobody expects at the place of a value."""
    way = rng.randrange(9)
    if way < 2:
        return rng.choice(NUMBERS)
    if way < 4:
        return rng.choice(NAMES)
    if way == 4:
        return rng.choice((None, True, False, [], {}, [[]], {"": {}}, [None] * 2000))
    if way == 5:
        return str(rng.choice(NUMBERS)) if rng.random() < 0.5 else "9" * 6000
    if way == 6:
        return nested(rng.choice((20, 200, 900)), rng)
    if way == 7:
        return {rng.choice(NAMES): rng.choice(NUMBERS) for _ in range(3)}
    return rng.choice(
        ("(" * 5000 + "a" + ")" * 5000, "[a:b:" * 400, "*[0.1,1e999]", "re:(a+)+$", "${a}", "{word}" * 999)
    )


def nested(depth: int, rng: random.Random) -> Any:
    """Lists or tables in each other."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if rng.random() < 0.5 else {"a": value}
    return value


def places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every (container, key) in plain values."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        found.append((value, key))
        places(item, found)
    return found


def mutate_plain(plain: Any, rng: random.Random) -> Any:
    """One place of plain values changed: another value, gone, renamed, moved, or wrapped."""
    found = places(plain, [])
    if not found:
        return hostile_value(rng)
    container, key = rng.choice(found)
    way = rng.randrange(8)
    if way < 4:
        container[key] = hostile_value(rng)
    elif way == 4:
        del container[key]
    elif way == 5 and isinstance(container, dict):
        container[rng.choice(NAMES)] = container.pop(key)
    elif way == 6:
        other, place = rng.choice(found)
        container[key] = json.loads(json.dumps(other[place]))
    else:
        container[key] = [container[key]]
    return plain


def as_json(plain: Any) -> bytes:
    """As JSON, with what no honest writer would write: whole numbers of any length, surrogates, NaN."""
    return re.sub(rb"1" + rb"0" * 400 + rb"\b", b"1" + b"0" * 6000, json.dumps(plain).encode("utf-8", "surrogatepass"))


def json_text(content: bytes, rng: random.Random) -> bytes:
    """Changes in the text of JSON."""
    way = rng.randrange(5)
    if way < 3:
        return as_json(mutate_plain(json.loads(content), rng))
    if way == 3:  # too deep for any reader that calls itself
        opened = rng.choice((b"[", b'{"a":'))
        return (
            content.rstrip()[:-1]
            + b',"deep":'
            + opened * DEEP
            + b"1"
            + (b"]" if opened == b"[" else b"}") * DEEP
            + b"}"
        )
    keys = re.findall(rb'"(\w+)":', content)
    twice = rng.choice(keys)
    return content.rstrip()[:-1] + b',"' + twice + b'":' + as_json(hostile_value(rng)) + b"}"


# ---- safetensors ----


def safetensors(content: bytes, rng: random.Random) -> bytes:
    """Changes in the header, or in how long it says to be."""
    length = int.from_bytes(content[:8], "little")
    head, data = content[8 : 8 + length], content[8 + length :]
    if rng.random() < 0.15:
        claim = rng.choice((0, 1, length - 1, length + 1, len(content), 2**31, 2**63, 2**64 - 1, 100_000_000))
        return claim.to_bytes(8, "little") + head + data
    header = json.loads(head)
    tensors = [key for key in header if key != "__metadata__"]
    way = rng.randrange(9)
    key = rng.choice(tensors)
    if way == 0:
        header[key]["dtype"] = rng.choice(
            ("F8_E4M3", "I64", "F64", "BOOL", "U8", "F7", "", None, 3, "F32", "BF16", "C64")
        )
    elif way == 1:
        header[key]["shape"] = rng.choice(
            ([], [0], [-1, 4], [2**40, 2**40], [1, 4.0], "4", None, [True], [1] * 5000, [[1]], [10**30], [2**62, 2])
        )
    elif way == 2:
        start, end = header[key]["data_offsets"]
        header[key]["data_offsets"] = rng.choice(
            ([end, start], [-1, end], [start, 2**63], [start], None, [start, end, 0], [0, 10**40], ["0", "1"], [1.5, 2])
        )
    elif way == 3:
        suffix = rng.choice(("", ".clip_l", ".string_to_param.*", ".lora_up.weight", ".alpha"))
        name = rng.choice(("bundle_emb." + rng.choice(NAMES) + suffix, rng.choice(NAMES) + suffix))
        header[name] = header.pop(key)
    elif way == 4:
        other = rng.choice(tensors)
        header[key], header[other] = header[other], header[key]
    elif way == 5:
        del header[key]
    elif way == 6:
        metadata = header.setdefault("__metadata__", {})
        name = rng.choice(
            [*metadata, "pivotal.words", "ss_tag_frequency", "pivotal.state", "modelspec.title", rng.choice(NAMES)]
        )
        try:
            inner = json.loads(metadata[name])
            metadata[name] = as_json(mutate_plain(inner, rng)).decode("utf-8", "surrogatepass")
        except (KeyError, ValueError, TypeError):
            metadata[name] = rng.choice(
                ("{", "[" * DEEP, "9" * 6000, "nan", '{"a": 1e999}', 5, None, {"a": []}, "\0", "../x")
            )
    elif way == 7:
        return safetensors_file(json_text(head, rng), data)
    else:
        mutate_plain(header, rng)
    return safetensors_file(as_json(header), data)


def safetensors_file(head: bytes, data: bytes) -> bytes:
    """A file of this header and these bytes."""
    return len(head).to_bytes(8, "little") + head + data


# ---- pickles ----


def torch_zip(content: bytes, rng: random.Random) -> bytes:
    """The pickle in a torch file, or the archive around it, changed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    name = sorted(entry for entry in entries if entry.endswith("data.pkl")).pop()
    way = rng.randrange(7)
    if way < 3:
        entries[name] = evil_pickle(rng)
    elif way == 3:
        entries[name] = blindly([evil_pickle(rng)])(entries[name], rng)
    elif way == 4:
        entries[rng.choice(NAMES) or "x"] = b"x"
    elif way == 5:
        victim = rng.choice(list(entries))
        entries[victim] = blindly([content])(entries[victim], rng)
    else:
        entries.pop(rng.choice(list(entries)))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for entry, data in entries.items():
            archive.writestr(entry, data)
    return stream.getvalue()


def bare_pickle(content: bytes, rng: random.Random) -> bytes:
    """No archive: a pickle alone, as old torch files and other programs' are."""
    return evil_pickle(rng)


def evil_pickle(rng: random.Random) -> bytes:
    """Code in every guise that a pickle has for it, or plain content that is too much."""
    calls = (
        ("os", "system", (COMMAND,)),
        ("posix", "system", (COMMAND,)),
        ("builtins", "eval", (f"open({MARKER!r}, 'w')",)),
        ("builtins", "exec", (f"open({MARKER!r}, 'w')",)),
        ("subprocess", "getoutput", (COMMAND,)),
        ("builtins", "open", (MARKER, "w")),
        ("torch", "save", (0, MARKER)),
        ("torch.serialization", "load", (MARKER,)),
        ("collections", "OrderedDict", ()),
        ("torch._utils", "_rebuild_tensor_v2", (1, 2, 3, 4)),
        ("builtins", "getattr", (1, "__class__")),
        ("pathlib", "Path.touch", (MARKER,)),
    )
    module, name, arguments = rng.choice(calls)
    protocol = rng.choice((0, 2, 4))
    body = pickle.dumps(arguments, protocol)[:-1]
    body = body[2:] if protocol >= 2 else body
    start = b"" if protocol == 0 else bytes((0x80, protocol))
    found = f"c{module}\n{name}\n".encode()
    if protocol == 4 and rng.random() < 0.5:
        found = (
            b"\x8c" + bytes((len(module),)) + module.encode() + b"\x8c" + bytes((len(name),)) + name.encode() + b"\x93"
        )
    evil = start + found + body + b"R"
    way = rng.randrange(6)
    if way == 0:
        return start + b"}U\x0fstring_to_param" + evil[len(start) :] + b"s."
    if way == 1:
        return start + b"(" * rng.choice((10, 5000)) + b"."
    if way == 2:
        return start + b"]" * 3000 + b"a" * 2999 + b"."
    if way == 3:
        return start + b"(i" + f"{module}\n{name}\n".encode() + b"."
    if way == 4:
        return pickle.dumps({"string_to_param": {"*": [1e999]}, "name": rng.choice(NAMES[:10]), "step": 10**400})
    return evil + b"."


# ---- YAML and TOML ----

_NUMBER = re.compile(rb"(?<=[ :=\[,])-?\d[\d.e-]*")
_EMBEDDINGS = re.compile(rb"(?<=[ '\"/])[A-Za-z_][\w.]{2,}")
_TEXTS = (
    b"!!python/object/apply:os.system ['" + COMMAND.encode() + b"']", b"!!python/name:os.system", b"&a [*a]", b"*b",
    b"${hcp.eval:\"9**9**9**9\"}", b"${hcp.eval:\"__import__('os').system('" + COMMAND.encode() + b"')\"}", b"${.a}",
    b"${a.b.c}", b"${..}", b"${x}" * 500, b"[" * 3000, b"{a: " * 900, b"1e999", b".nan", b"-.inf",
    b"0x" + b"f" * 5000,
    b"9" * 5000, b"1:2:3", b"2001-01-01", b"? [a]", b"{[a]: b}", b"'\xf0\x9f\x98\x80'",
    b"../../outside",
    b"/outside", b"~", b"yes", b"|", b">-", b"%", b"@", b"\"\\u0000\"", b"1979-05-27T07:32:00Z",
    b"[[x]]", b"'''", b"\"\"\"",
    b"_base_: [main.yaml]", b"{_target_: os.system, _args_: [x]}", b"[[[1, 2], 3], {}]", b"null", b"{}", b"-",
)  # fmt: skip


def settings_text(content: bytes, rng: random.Random) -> bytes:
    """Changes in the text of YAML or TOML."""
    text = rng.choice(_TEXTS)
    way = rng.randrange(6)
    lines = content.split(b"\n")
    if way < 2:
        spots = list((_NUMBER if way == 0 else _EMBEDDINGS).finditer(content))
        spot = rng.choice(spots)
        return content[: spot.start()] + text + content[spot.end() :]
    at = rng.randrange(len(lines))
    if way == 2:
        del lines[at]
    elif way == 3:
        lines.insert(at, lines[rng.randrange(len(lines))])
    elif way == 4:
        lines[at] = re.sub(rb"([:=] ?).*", lambda match: match[1] + text, lines[at])
    else:
        lines[at] = rng.choice((b"  ", b"\t", b"- ")) * rng.choice((1, 300)) + lines[at]
    return b"\n".join(lines)


_KNOWINGLY: dict[str, tuple[Callable[[bytes, random.Random], bytes], ...]] = {
    ".safetensors": (safetensors, safetensors, safetensors),
    ".pt": (torch_zip, torch_zip, bare_pickle),
    ".json": (json_text, json_text),
    ".yaml": (settings_text, settings_text),
    ".toml": (settings_text, settings_text),
}
