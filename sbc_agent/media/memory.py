"""Memory that holds speech: kept out of core dumps, and out of swap where the system allows."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any, Final

import numpy as np
import numpy.typing as npt

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
