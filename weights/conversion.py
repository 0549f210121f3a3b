"""Conversion by a table of `weights.schemes`.

Checked both ways and before anything is read: every parameter must be found with the right shape and type, and every
entry of the checkpoint must be used or be on the list of what is ignored. All that is wrong comes in one error.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np

from musc_jax._text import shown
from weights.errors import WeightsError
from weights.files import Entry
from weights.rules import Rule, Scheme, Shape
from weights.schemes import SCHEMES, named_like

_LISTED = 12
_FLOATS = ("float64", "float32", "float16", "bfloat16")


def looks_like(entries: Mapping[str, Entry]) -> str | None:
    """The family whose naming a checkpoint follows, for a helpful message."""
    if {"embeddings.class_embedding", "visual.class_embedding", "class_embedding", "norm_pre.weight"} & set(entries):
        return "clip"
    if "encoder.first_conv.0.weight" in entries:
        return "point_mae"
    if {"layer.0.mlp.up_proj.weight", "storage_tokens", "blocks.0.gamma_1"} & set(entries):
        return "dinov3"
    if {"encoder.layer.0.layer_scale1.lambda1", "blocks.0.ls1.gamma"} & set(entries):
        return "dinov2"
    if {"embeddings.cls_token", "cls_token"} & set(entries):
        return "dino"
    return None


def scheme_of(family: str, entries: Mapping[str, Entry], file: str) -> Scheme:
    """The naming scheme that a checkpoint follows.

    Raises:
        WeightsError: It follows none of the family's; says which family it looks like.
    """
    other = looks_like(entries)
    if other in (None, named_like(family)):
        for scheme in SCHEMES[family]:
            if scheme.marker in entries:
                return scheme
    hint = f"it looks like {other}" if other else f"first entries: {', '.join(map(shown, sorted(entries)[:4]))}"
    raise WeightsError(f"{file}: no {family} checkpoint ({hint}); pass the file of the backbone named by --backbone")


def convert(
    entries: Mapping[str, Entry], scheme: Scheme, rules: list[Rule], shapes: Mapping[str, Shape], file: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Turns a checkpoint's entries into parameters.

    Args:
        entries: By name, in the form the table has.
        scheme: The naming scheme.
        rules: One for each parameter.
        shapes: Expected shape by parameter path.
        file: For the message.

    Returns:
        (path, float32 array) for each parameter, read when it is asked for, so that a checkpoint is never in memory
        as a whole. Nothing is read before all names, shapes and types are found to be right.

    Raises:
        WeightsError: Lists every missing, unexpected and misshapen entry; while reading, those that hold NaN or
            infinity.
    """
    unfilled = set(shapes) - {rule.target for rule in rules}
    assert not unfilled, f"the table has no rule for {sorted(unfilled)}"
    missing, misshapen, used = [], [], set(scheme.zero)
    for rule in rules:
        used |= set(rule.sources)
        for name, allowed in zip(rule.sources, rule.transform.sources(shapes[rule.target]), strict=True):
            if name not in entries:
                missing.append(name)
            elif entries[name].shape not in allowed:
                expected = max(allowed, key=len)
                misshapen.append(f"{name} {entries[name].shape}, expected {expected}")
            elif entries[name].dtype not in _FLOATS:
                misshapen.append(f"{name} of type {shown(entries[name].dtype)}, expected floating point numbers")
    ignored = re.compile(scheme.ignored)
    unexpected = [name for name in entries if name not in used and not ignored.fullmatch(name)]
    _refuse(file, missing=missing, unexpected=unexpected, misshapen=misshapen)
    return _values(entries, scheme, rules, file)


def _values(
    entries: Mapping[str, Entry], scheme: Scheme, rules: list[Rule], file: str
) -> Iterator[tuple[str, np.ndarray]]:
    broken = [name for name in scheme.zero if name in entries and np.any(entries[name].read())]
    if broken:
        raise WeightsError(f"{file}: does not fit this backbone: {broken[0]} is not 0; it is another model's head")
    last: dict[str, np.ndarray] = {}
    for rule in rules:
        # Two rules in a row may take their parameters out of one entry, which is read, and held, once.
        last = {name: last[name] if name in last else entries[name].read().astype(np.float32) for name in rule.sources}
        parts = list(last.values())
        broken += [name for name, part in zip(rule.sources, parts, strict=True) if not np.isfinite(part).all()]
        yield rule.target, np.ascontiguousarray(rule.transform.apply(*parts))
    _refuse(file, **{"not finite": broken})


def _refuse(file: str, **problems: list[str]) -> None:
    """Raises one error with everything that is wrong, if anything is."""
    found = [
        f"{len(names)} {kind} ({'; '.join(map(shown, sorted(names)[:_LISTED]))}{'; ...' * (len(names) > _LISTED)})"
        for kind, names in problems.items()
        if names
    ]
    if found:
        raise WeightsError(f"{file}: does not fit this backbone: {', '.join(found)}")
