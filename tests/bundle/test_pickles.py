"""No pickle is ever executed."""

from __future__ import annotations

import io
import os
import pickle
import random
import re
import tarfile
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from lib_pivotal.bundle.embedding_files import read_embedding
from lib_pivotal.bundle.pickles import load_plain, load_tensors
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.errors import BundleError


class Attack:
    """Touches a file when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("reader", [load_plain, load_tensors, read_bundle, read_embedding])
@pytest.mark.parametrize("modern", [True, False])
def test_an_attack_is_refused_and_not_run(tmp_path: Path, reader: object, modern: bool) -> None:
    target, path = tmp_path / "owned", tmp_path / "evil.pt"
    content = {"string_to_param": {"*": torch.ones(1, 768)}, "x": Attack(target)}
    if modern:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(BundleError, match=r"refused|not a torch file"):
        reader(path)  # type: ignore[operator]
    assert not target.exists()


def test_tensors_numbers_and_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(2), "step": 3, "name": "x"}, path)
    assert load_plain(path)["step"] == 3
    assert set(load_tensors(path)) == {"a"}


@pytest.mark.parametrize("content", [b"", b"nothing", b"\x80\x02.", b"PK\x03\x04broken"])
def test_garbage(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"x\.pt"):
        load_plain(path)


SAVED = {"string_to_token": {"*": 265}, "string_to_param": {"*": torch.ones(1, 8)}, "name": "x", "step": 5}
LAYOUTS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}


def damaged(content: bytes, draw: random.Random) -> bytes:
    """One to six places changed, cut or doubled: at the beginning, in the zip's list, anywhere."""
    made = bytearray(content)
    for _ in range(draw.randint(1, 6)):
        size = len(made)
        at = draw.choice(
            (draw.randrange(min(size, 500)), size - 1 - draw.randrange(min(size, 500)), draw.randrange(size))
        )
        kind = draw.choice(("byte", "bit", "cut", "double"))
        if kind == "byte":
            made[at] = draw.randrange(256)
        elif kind == "bit":
            made[at] ^= 1 << draw.randrange(8)
        elif kind == "double":
            made[at:at] = made[at : at + 20]
        elif size > 100:
            del made[at : at + draw.randint(1, 40)]
    return bytes(made)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_files_are_read_or_refused(tmp_path: Path, layout: str) -> None:
    """Nothing but BundleError, which names the file: torch itself raises a dozen types."""
    path = tmp_path / "x.pt"
    torch.save(SAVED, path, **LAYOUTS[layout])
    content, draw, refused = path.read_bytes(), random.Random(0), 0
    for _ in range(400):
        path.write_bytes(damaged(content, draw))
        for read in (read_embedding, read_bundle):
            try:
                read(path)
            except BundleError as error:
                assert "x.pt" in str(error)
                refused += 1
    assert refused > 100


def test_a_storage_that_is_not_there(tmp_path: Path) -> None:
    """torch asserts that each storage which the legacy layout names was announced before."""
    path = tmp_path / "x.pt"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    keys = re.findall(rb"\d{8,}", content)
    at = content.rindex(keys[-1])
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(BundleError, match="not a torch file"):
        load_plain(path)


def test_missing_and_wrong_content(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be opened"):
        load_plain(tmp_path / "none.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(BundleError, match="holds a list"):
        load_tensors(tmp_path / "list.pt")


class CommandAttack:
    """Runs a command line when unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"mkdir {self.target}",)


def stored(content: object, **options: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def rezipped(data: bytes, *, compression: int = zipfile.ZIP_STORED, **more: bytes) -> bytes:
    """The same archive, written by Python; `more` replaces members or adds them."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        folder = old.namelist()[0].split("/")[0]
        for name in old.namelist():
            new.writestr(name, more.pop(name.removeprefix(f"{folder}/"), old.read(name)))
        for name, content in more.items():
            new.writestr(f"{folder}/{name}", content)
    return out.getvalue()


EMBEDDING = {"string_to_param": {"*": torch.ones(1, 768)}, "name": "x"}


def hostile(kind: str, target: Path) -> bytes:
    evil = pickle.dumps(CommandAttack(target), protocol=2)
    good = stored(EMBEDDING)
    with zipfile.ZipFile(io.BytesIO(good)) as archive:
        folder = archive.namelist()[0].split("/")[0]
        honest = archive.read(f"{folder}/data.pkl")
    legacy = stored(EMBEDDING, _use_new_zipfile_serialization=False)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as old:
        for name in ("storages", "tensors", "pickle"):
            member = tarfile.TarInfo(name)
            member.size = len(evil)
            old.addfile(member, io.BytesIO(evil))
    made = {
        "reduce, zip": lambda: stored({"x": CommandAttack(target), **EMBEDDING}),
        "reduce, legacy": lambda: stored({"x": CommandAttack(target)}, _use_new_zipfile_serialization=False),
        "reduce, protocol 4": lambda: stored({"x": CommandAttack(target)}, pickle_protocol=4),
        "a bare pickle": lambda: evil,
        "tar of the very first torch": tar.getvalue,
        "behind the pickle of an archive": lambda: rezipped(good, **{"data.pkl": honest + evil}),
        "behind the pickles of the legacy layout": lambda: legacy + evil,
        "before the pickles of the legacy layout": lambda: evil + legacy,
        "a second data.pkl below another folder": lambda: rezipped(good, **{"../evil/data.pkl": evil}),
        "an archive as data.pkl": lambda: rezipped(good, **{"data.pkl": rezipped(good, **{"data.pkl": evil})}),
        "TorchScript": lambda: rezipped(good, **{"constants.pkl": evil, "code/__torch__.py": b"import os"}),
        "a persistent id that is a call": lambda: rezipped(
            good, **{"data.pkl": b"\x80\x02X\x01\x00\x00\x00acos\nsystem\n\x86Q."}
        ),
        "a storage whose key leaves the archive": lambda: rezipped(
            good, **{"data.pkl": honest.replace(b"X\x01\x00\x00\x000", b"X\x09\x00\x00\x00../../etc")}
        ),
    }
    return made[kind]()


HOSTILE = (
    "reduce, zip", "reduce, legacy", "reduce, protocol 4", "a bare pickle", "tar of the very first torch",
    "behind the pickle of an archive", "behind the pickles of the legacy layout",
    "before the pickles of the legacy layout", "a second data.pkl below another folder", "an archive as data.pkl",
    "TorchScript", "a persistent id that is a call", "a storage whose key leaves the archive",
)  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reader", [load_plain, read_bundle, read_embedding])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_files_are_refused_by_name_and_nothing_runs(kind: str, reader: object, tmp_path: Path) -> None:
    target, path = tmp_path / "owned", tmp_path / "evil.pt"
    path.write_bytes(hostile(kind, target))
    with pytest.raises(BundleError, match=r"evil\.pt: (refused|not a torch file)"):
        reader(path)  # type: ignore[operator]
    assert not target.exists()


def test_zip_bombs_are_refused_before_they_unpack(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pt"
    zeros = rezipped(stored({"a": torch.zeros(1 << 20)}), compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(zeros)
    assert torch.equal(load_plain(path)["a"], torch.zeros(1 << 20)), "packed by hand: within the bound"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lib_pivotal.bundle.pickles.MAX_UNPACKED_BYTES", 1 << 20)
        with pytest.raises(BundleError, match="unpacks to more"):
            load_plain(path)


def overlapping(data: bytes) -> bytes:
    """An archive whose list names the same bytes a thousand times."""
    with zipfile.ZipFile(io.BytesIO(data)) as old:
        folder = old.namelist()[0].split("/")[0]
        out = io.BytesIO(data)
        with zipfile.ZipFile(out, "a") as new:
            largest = max(old.infolist(), key=lambda info: info.file_size)
            for number in range(1000):
                twin = zipfile.ZipInfo(f"{folder}/data/{number + 10}")
                twin.header_offset, twin.CRC = largest.header_offset, largest.CRC
                twin.file_size, twin.compress_size = largest.file_size, largest.compress_size
                new.filelist.append(twin)
            new._didModify = True  # type: ignore[attr-defined]
    return out.getvalue()


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(overlapping(stored(EMBEDDING)))
    with pytest.raises(BundleError, match="overlap"):
        load_plain(path)


def test_a_storage_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    """A number in the pickle must not make the reader ask for the machine's memory."""
    path = tmp_path / "x.pt"
    for layout in LAYOUTS.values():
        data = stored({"a": torch.ones(200)}, **layout)
        assert data.count(b"K\xc8") >= 1
        path.write_bytes(data.replace(b"K\xc8", b"J\xff\xff\xff\x7f".ljust(5), 1))
        with pytest.raises(BundleError, match=r"x\.pt"):
            load_plain(path)


RICH = {
    **{str(dtype): torch.arange(6).to(dtype) for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
        torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64)},
    "transposed": torch.arange(6.0).view(2, 3).t(),
    "slice": torch.arange(10.0)[3:7],
    "scalar": torch.tensor(3.0),
    "empty": torch.empty(0, 4),
    "parameter": torch.nn.Parameter(torch.ones(2)),
    "state dict": torch.nn.Linear(2, 3).state_dict(),
    "optimiser": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.99)}]},
    "size": torch.Size([1, 2]),
    "dtype": torch.float16,
    "rng": torch.random.get_rng_state(),
    "bytes": b"\x00\xff",
    "ordered": OrderedDict(a=1),
    "plain": [1, 2.5, "x", None, True, {"y": (1, 2)}, 2**70],
}  # fmt: skip


def assert_same(ours: object, theirs: object) -> None:
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, torch.Tensor)
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        assert (
            ours.contiguous().view(-1).view(torch.uint8).tolist()
            == theirs.detach().contiguous().view(-1).view(torch.uint8).tolist()
            if theirs.numel()
            else ours.numel() == 0
        )
    elif isinstance(theirs, dict):
        assert isinstance(ours, dict)
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple):
        assert isinstance(ours, list | tuple)
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert_same(mine, other)
    else:
        assert ours == theirs


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_content_is_what_torch_reads(tmp_path: Path, layout: str, protocol: int) -> None:
    """Bit for bit, whoever has put what in the place of torch's and Python's readers."""
    path = tmp_path / "x.pt"
    unknown = "float8" if layout == "legacy" else "nothing"  # torch itself cannot read back what it wrote
    content = {key: value for key, value in RICH.items() if unknown not in key}
    torch.save(content, path, pickle_protocol=protocol, **LAYOUTS[layout])  # type: ignore[arg-type]
    theirs = torch.load(path, weights_only=False)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a reader that could run code")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", refuse)
        patch.setattr(torch.serialization, "load", refuse)
        patch.setattr(pickle, "Unpickler", refuse)
        patch.setattr(pickle, "load", refuse)
        assert_same(load_plain(path), theirs)


def test_embeddings_of_old_web_uis_hold_a_parameter_dict(tmp_path: Path) -> None:
    content = {"string_to_param": torch.nn.ParameterDict({"*": torch.nn.Parameter(torch.ones(2, 768))}), "name": "x"}
    for name, layout in LAYOUTS.items():
        path = tmp_path / f"{name}.pt"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch cannot find the source of a class
            torch.save(content, path, **layout)  # type: ignore[arg-type]
        assert torch.equal(read_embedding(path).vectors[0], torch.ones(2, 768))


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    numpy = pytest.importorskip("numpy")
    torch.save({"loss": numpy.float32(0.5), "step": numpy.int64(7), "flag": numpy.bool_(True)}, path)
    assert load_plain(path) == {"loss": 0.5, "step": 7, "flag": True}


ROOT = Path(__file__).parents[2]
READERS_OF_PICKLES = re.compile(
    r"\b(?:torch|pickle|torch\.serialization|dill|joblib)\.loads?\(|Unpickler|unsafe_torch_load|allow_pickle"
)


def test_no_other_reader_of_pickles_is_in_the_library() -> None:
    """Nothing but the opcodes that we play ourselves: before torch 2.6 `weights_only=True` is no wall."""
    files = [path for folder in ("lib_pivotal", "scripts", "examples") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 100
    found = {
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if READERS_OF_PICKLES.search(line.partition("#")[0]) and "`" not in line
    }
    assert not found


def test_files_of_big_endian_machines_are_turned_round(tmp_path: Path) -> None:
    path, tensor = tmp_path / "x.pt", torch.arange(6.0).view(2, 3)
    swapped = b"".join(tensor.numpy().tobytes()[at : at + 4][::-1] for at in range(0, 24, 4))
    path.write_bytes(rezipped(stored({"a": tensor}), **{"byteorder": b"big", "data/0": swapped}))
    assert torch.equal(load_plain(path)["a"], tensor)
