"""Refusals that are the operating system's own: full files, full disks, failing disks, folders without permission.

Linux only; what a system cannot do says so through `can_*`, and the campaign leaves those kinds out and says it.
Filters and capabilities belong to the thread that asks for them, which cannot take them back: a trial trains in a
thread of its own and looks around in another.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import platform
import resource
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

BALLAST = "another program's"
SYSCALLS = {
    "write": (1, 18, 20),  # write, pwrite64, writev
    "flush": (74, 75),  # fsync, fdatasync
    "rename": (82, 264, 316),
    "link": (86, 265),
    "remove": (87, 263),
    "mkdir": (83, 258),
}
"""Numbers of x86-64."""

_SECCOMP_DATA_NR, _SECCOMP_DATA_ARCH, _ARCH_X86_64 = 0, 4, 0xC000003E
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_CAPABILITY_VERSION_3 = 0x20080522
_DAC_OVERRIDE, _DAC_READ_SEARCH, _FOWNER = 1, 2, 3


def can_filter() -> bool:
    """Whether system calls can be made to fail."""
    return platform.system() == "Linux" and platform.machine() == "x86_64"


def fail_calls(kinds: Sequence[str], number: int) -> None:
    """From now on these kinds of system calls (`SYSCALLS`) of this thread fail with the error `number`. For good."""
    numbers = [call for kind in kinds for call in SYSCALLS[kind]]
    program = [(_LOAD, 0, 0, _SECCOMP_DATA_ARCH), (_JUMP_EQUAL, 1, 0, _ARCH_X86_64), (_RETURN, 0, 0, _ALLOW)]
    program.append((_LOAD, 0, 0, _SECCOMP_DATA_NR))
    for index, call in enumerate(numbers):
        program.append((_JUMP_EQUAL, len(numbers) - index, 0, call))
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | number)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    header = struct.pack("=H6xQ", len(program), ctypes.addressof(code))
    libc = _libc()
    _demand(libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
    _demand(libc.prctl(_SET_SECCOMP, _FILTER_MODE, ctypes.create_string_buffer(header), 0, 0))


def obey_permissions() -> None:
    """From now on this thread may do no more than the files' permissions say, also where it is root."""
    if os.name != "posix" or os.geteuid() != 0:
        return
    libc = _libc()
    header = ctypes.create_string_buffer(struct.pack("=II", _CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(24)
    _demand(libc.capget(header, data))
    fields = list(struct.unpack("=6I", data.raw))
    for bit in (_DAC_OVERRIDE, _DAC_READ_SEARCH):
        fields[0] &= ~(1 << bit)  # effective; permitted stays, nobody asks for it again
    _demand(libc.capset(header, ctypes.create_string_buffer(struct.pack("=6I", *fields))))


def limit_files(limit_bytes: int | None) -> None:
    """No file of this process grows beyond the limit (RLIMIT_FSIZE); None lifts it."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard if limit_bytes is None else limit_bytes, hard))


@functools.lru_cache(maxsize=1)
def can_mount() -> bool:
    """Whether a small file system of its own can be made (root, and not everywhere)."""
    if platform.system() != "Linux" or os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        try:
            mount_small(Path(folder), size_bytes=65536)
        except OSError:
            return False
        unmount(Path(folder))
    return True


def mount_small(folder: Path, *, size_bytes: int) -> None:
    """A file system in memory at `folder`, of that size."""
    _demand(_libc().mount(b"tmpfs", bytes(folder), b"tmpfs", 0, f"size={size_bytes}".encode()))


def unmount(folder: Path) -> None:
    """Take it away, with everything in it."""
    _demand(_libc().umount2(bytes(folder), 2))


def fill(folder: Path, *, leave_bytes: int) -> Path:
    """What another program does to a disk: a file that takes all but a little. Returns it."""
    ballast = folder / BALLAST
    with ballast.open("wb", buffering=0) as file:
        room = os.statvfs(folder)
        free = room.f_bavail * room.f_frsize - leave_bytes
        try:
            while free > 0:
                free -= file.write(b"\0" * min(free, 65536))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
    return ballast


@functools.lru_cache(maxsize=1)
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _demand(answer: int) -> None:
    if answer != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
