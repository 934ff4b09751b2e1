"""A disk that takes no more, made real: the operating system itself refuses, with the error that it really raises."""

import contextlib
import resource
from concurrent.futures import ThreadPoolExecutor

from tests.faults.kernel import obey_permissions


@contextlib.contextmanager
def small_files_only(limit_bytes):
    """Inside, no file of this process can grow beyond `limit_bytes` (RLIMIT_FSIZE; Python ignores its signal)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def without_privileges(call):
    """What `call` gives in a thread that may do no more than the permissions of files say, also where we are root."""
    with ThreadPoolExecutor(1, initializer=obey_permissions) as pool:
        return pool.submit(call).result()
