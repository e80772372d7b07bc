"""Memory that holds speech: kept out of core dumps, and out of swap where the system allows."""

from __future__ import annotations

import ctypes
import mmap
import resource
import signal
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_MLOCK_ONFAULT: Final = 1
_libc: Final[Any] = ctypes.CDLL(None, use_errno=True)


def array(count: int, dtype: npt.DTypeLike, *, is_dense: bool = False) -> npt.NDArray[Any]:
    """An array of zeros in pages of its own, which no core dump shows; pages are taken when first written.

    Args:
        count: How many elements.
        dtype: Of which type.
        is_dense: Whether nearly all of it will be used, here and there: large pages then spare the processor's tables.
    """
    kind = np.dtype(dtype)
    pages = mmap.mmap(-1, max(count * kind.itemsize, 1))
    if hasattr(mmap, "MADV_DONTDUMP"):
        pages.madvise(mmap.MADV_DONTDUMP)
    if is_dense and hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, kind, count)


def lock(*arrays: npt.NDArray[Any]) -> bool:
    """Keeps arrays out of swap, page by page as they are touched.

    Returns:
        Whether the system allowed it: RLIMIT_MEMLOCK bounds what an ordinary user may lock.
    """
    if not hasattr(_libc, "mlock2"):
        return False
    locked = [
        _libc.mlock2(ctypes.c_void_p(one.ctypes.data), ctypes.c_size_t(one.nbytes), _MLOCK_ONFAULT) == 0
        for one in arrays
    ]
    return all(locked)


def forbid_core_dumps() -> bool:
    """Neither a crash nor a debugger of the same user may write this process's memory out; tells whether that holds."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return bool(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0)


def end_with_parent() -> None:
    """Has the kernel kill this process when its parent dies: the next run wants its ports, and takes up its calls."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def raise_file_limit() -> int:
    """Raises the soft limit of open files to the hard one; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
