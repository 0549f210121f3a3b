"""Bicubic resizing in plain words, as DINO's and DINOv2's own programs do it."""

import numpy as np


def naive_bicubic(values, target, offset):
    """One axis: the four taps around each sampled position, a = -0.75, clamped at the edge."""
    a, scale, out = -0.75, (target + offset) / len(values), []
    for i in range(target):
        x = (i + 0.5) / scale - 0.5
        total = 0.0
        for tap in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
            d = abs(x - tap)
            w = (a + 2) * d**3 - (a + 3) * d**2 + 1 if d <= 1 else a * (d**3 - 5 * d**2 + 8 * d - 4)
            total = total + w * values[min(max(tap, 0), len(values) - 1)]
        out.append(total)
    return np.array(out)


def naive_positions(embedding, grid, offset):
    """(side * side, C) to (rows * columns, C): first along the columns, then along the rows."""
    side = round(len(embedding) ** 0.5)
    square = np.asarray(embedding, np.float64).reshape(side, side, -1)
    rows = naive_bicubic(square, grid[0], offset)
    return naive_bicubic(rows.swapaxes(0, 1), grid[1], offset).swapaxes(0, 1).reshape(grid[0] * grid[1], -1)
