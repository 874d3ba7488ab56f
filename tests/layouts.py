"""The same numbers, laid out in memory in every way that NumPy knows."""
import numpy as np


def spread(a):
    "The same numbers, with larger ones between them."
    wide = np.full([2 * n for n in a.shape], 777, a.dtype)
    wide[tuple(slice(None, None, 2) for _ in a.shape)] = a
    return wide[tuple(slice(None, None, 2) for _ in a.shape)]


def frozen(a):
    a = a.copy()
    a.flags.writeable = False
    return a


layouts = {"Fortran": np.asfortranarray, "strided": spread, "reversed": lambda a: a[..., ::-1].copy()[..., ::-1], "read-only": frozen,
           "byte-swapped": lambda a: a.astype(a.dtype.newbyteorder("S")), "a list": np.ndarray.tolist, "unaligned": lambda a: np.frombuffer(b"." + a.tobytes(), a.dtype, offset=1).reshape(a.shape)}
