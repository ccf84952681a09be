"""Lanczos scaling of 8-bit pictures in whole numbers: the same bytes whatever library is installed.

Which tokens a picture becomes hangs on its last bits. So the filter is defined here, as Pillow had it up to version 12
(from 13 on it takes the axes in another order for some shapes, and gives other pixels): first along rows, then along
columns; the weights of a sinc windowed to three lobes, which widens where a picture gets smaller, normalised and
rounded to 22 bits; each pass rounded to 8 bits. All sums are whole numbers below 2**53, so float64 holds them exactly,
in whatever order a matrix product adds them.
"""

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

LOBES = 3
BITS = 32 - 8 - 2  # of a weight: 8 are left for the value, 2 for what overshoots
_BLOCK = 64  # outputs computed at a time: few enough that most weights of a block are not zero
_WIDE = 2**20  # numbers held in float64 at a time

Pixels = npt.NDArray[np.uint8]
Weights = npt.NDArray[np.float64]
Box = tuple[int, int, int, int]


def lanczos(pixels_HWC: Pixels, width: int, height: int, box: Box | None = None) -> Pixels:
    """uint8 [H, W, C] scaled to `width` x `height`; only `box` (left, top, right, bottom) of it is made."""
    left, top, right, bottom = box or (0, 0, width, height)
    planes_CHW = np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))
    rows_CHW = _along_last(planes_CHW, width, left, right)
    columns_CWH = _along_last(np.ascontiguousarray(rows_CHW.swapaxes(1, 2)), height, top, bottom)
    return np.ascontiguousarray(columns_CWH.transpose(2, 1, 0))


def _along_last(values: Pixels, size: int, start: int, stop: int) -> Pixels:
    """The last axis scaled to `size`, of which [start, stop) is given."""
    length = values.shape[-1]
    if length == size:
        return values[..., start:stop]
    rows = values.reshape(-1, length)
    scaled = np.empty((len(rows), stop - start), dtype=np.uint8)
    for begin in range(start, stop, _BLOCK):
        end = min(begin + _BLOCK, stop)
        first, weights = _weights(length, size, begin, end)
        many = max(1, _WIDE // weights.shape[1])
        for top in range(0, len(rows), many):
            sums = rows[top : top + many, first : first + weights.shape[1]].astype(np.float64) @ weights.T
            rounded = np.floor((sums + 2 ** (BITS - 1)) / 2**BITS)
            scaled[top : top + many, begin - start : end - start] = rounded.clip(0, 255)
    return scaled.reshape(*values.shape[:-1], stop - start)


@lru_cache(maxsize=64)
def _weights(length: int, size: int, begin: int, end: int) -> tuple[int, Weights]:
    """The first input that outputs [begin, end) read, and whole-numbered weights [output, input] from there on."""
    rows = [_weights_of(length, size, output) for output in range(begin, end)]
    first = min(start for start, _ in rows)
    last = max(start + len(row) for start, row in rows)
    table = np.zeros((end - begin, last - first))
    for place, (start, row) in enumerate(rows):
        table[place, start - first : start - first + len(row)] = row
    return first, table


def _weights_of(length: int, size: int, output: int) -> tuple[int, list[int]]:
    """The first input that one output reads, and its weights in units of 2**-BITS."""
    scale = length / size
    widened = max(scale, 1.0)
    center = (output + 0.5) * scale
    first = max(int(center - LOBES * widened + 0.5), 0)
    last = min(int(center + LOBES * widened + 0.5), length)
    raw = [_window((place - center + 0.5) * (1.0 / widened)) for place in range(first, last)]
    total = sum(raw)
    units = [weight / total * 2**BITS for weight in raw]
    return first, [int(value - 0.5 if value < 0 else value + 0.5) for value in units]


def _window(x: float) -> float:
    return _sinc(x) * _sinc(x / LOBES) if -LOBES <= x < LOBES else 0.0


def _sinc(x: float) -> float:
    return math.sin(x * math.pi) / (x * math.pi) if x else 1.0
