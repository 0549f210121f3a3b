"""Scenes for the schedules, and what they must give: NumPy in float64, what does not count taken out beforehand."""

import numpy as np
from test_crossmodal import naive_match

SIZES = {"rgb": (16, 8), "points": (20, 6)}
COUNT = 9
GROUPS = np.array([4, 1, 1, 7, 2, 4, 3, 1, 9])


def scene(seed=0):
    """((N, M, C) of each modality, patch of each group): unit vectors away from the origin."""
    rng = np.random.default_rng(seed)
    stages = []
    for tokens, channels in SIZES.values():
        z = rng.normal(size=(COUNT, tokens, channels))
        stages.append((z / np.linalg.norm(z, axis=-1, keepdims=True) + 0.5).astype(np.float32))
    return stages, rng.integers(0, 12, (COUNT, SIZES["points"][0])).astype(np.int32)


def make_lists(references, count=COUNT, seed=3):
    """(N, R) other samples, in no order."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation([j for j in range(count) if j != i])[:references] for i in range(count)])


def make_masks(seed=1):
    """(query masks, reference masks) of each modality; some tokens do one of both, some neither."""
    rng = np.random.default_rng(seed)
    return [[rng.random((COUNT, tokens)) < share for tokens, _ in SIZES.values()] for share in (0.7, 0.6)]


def spoilt(stages, query, reference):
    """What neither is scored nor scores holds NaN."""
    return [np.where((q | r)[..., None], z, np.nan) for z, q, r in zip(stages, query, reference, strict=True)]


def _by_unit(tokens, valid, i, members):
    """(M,) distances of sample i's tokens to the nearest one that counts of any member."""
    others = np.concatenate([tokens[j][valid[j]] for j in members])
    return np.linalg.norm(tokens[i][:, None] - others[None], axis=-1).min(1)


def _enhanced(two, three, patch, variant):
    """CAE of SPEC 6 on (M, R) arrays of tokens that count; `patch` is -1 where a group's patch does not."""
    to_2d = np.stack(
        [three[patch == p].mean(0) if (patch == p).any() else np.zeros(two.shape[1]) for p in range(len(two))]
    )
    to_3d = np.where((patch >= 0)[:, None], two[patch], 0)
    out = []
    for own, other, seen in ((two, to_2d, (to_2d != 0).any(1)), (three, to_3d, patch >= 0)):
        if variant == "paper":
            rows = []
            for o, x, s in zip(own, other, seen, strict=True):
                y = (x - x.min()) / (np.ptp(x) or 1) * np.ptp(o) + o.min() if s else np.zeros_like(o)
                rows.append(o + (1 - y.std()) * np.maximum(y, o))
            out.append(np.array(rows))
            continue
        std = lambda d: d.std(1, ddof=1) if d.shape[1] > 1 else np.zeros(len(d))  # noqa: E731
        trust = 1 - naive_match(std(own), std(other))
        matched = other.copy()
        matched[seen] = naive_match(own[seen], other[seen])
        matched = np.maximum(matched, own) * trust[:, None]
        out.append((own + naive_match(own, matched)) / 2)
    return out


def by_definition(stages, references, *, patch=None, query=None, reference=None, interval=0.4, variant="released"):
    """Patch scores of each modality, 0 for tokens that are not scored."""
    stages = [np.asarray(z, np.float64) for z in stages]
    whole = [np.ones(z.shape[:2], bool) for z in stages]
    query, reference = query or whole, reference or whole
    units = np.arange(len(references.samples)) if references.units is None else references.units
    out = [np.zeros(z.shape[:2]) for z in stages]
    for i, columns in enumerate(references.columns):
        scores = []
        for z, q, r in zip(stages, query, reference, strict=True):
            by = [_by_unit(z, r, i, references.samples[units == unit]) for unit in columns]
            scores.append(np.array(by).T[q[i]])
        if patch is not None:
            place = np.full(len(query[0][i]), -1)
            place[query[0][i]] = np.arange(query[0][i].sum())
            scores = _enhanced(*scores, place[patch[i]][query[1][i]], variant)
        for found, q, own in zip(out, query, scores, strict=True):
            count = max(1, int(own.shape[1] * interval))
            found[i, q[i]] = np.sort(own, axis=1)[:, :count].mean(1)
    return out
