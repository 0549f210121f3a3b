"""The whole method once more, in float64 NumPy, written from the equations and from nothing of the library's.

It is slow, direct and only as general as the tests need: one image backbone of DINO's kind, one device. What the
library computes by any schedule, kernel or plan is held against it. Parameters are plain arrays, named as the library's
modules name theirs; every switch is a plain argument.
"""
