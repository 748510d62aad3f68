"""Memory that a training step frees stays with the process, for the next step."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """For the whole process, where the C library is glibc; elsewhere nothing.

    A step's gradients and activations come and go.  Where they lie at the heap's top, or in maps of
    their own, malloc returns them to the kernel each time, and to touch them again costs a page
    fault every 4 KB: some 3,000 a step of the likelihood experiments.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_THRESHOLD, _BYTES)
            libc.mallopt(_M_TRIM_THRESHOLD, _BYTES)
