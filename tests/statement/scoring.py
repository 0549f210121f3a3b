"""Mutual scores, the interval average, cross-modal enhancement (eq. 7-11) and RsCon (eq. 12-15)."""

import ml_dtypes
import numpy as np

from statement.margins import note, note_split


def columns(count, references, seed):
    """For each sample, the samples that score it: all others, or the first R drawn that are not itself."""
    if references is None or references >= count - 1:
        return [[j for j in range(count) if j != i] for i in range(count)]
    drawn = np.random.default_rng(seed).permutation(count)[: references + 1].tolist()
    return [sorted([j for j in drawn if j != i][:references]) for i in range(count)]


def most_similar(stages, counts, wanted):
    """For each sample, those whose mean tokens of all stages are nearest, each stage brought to the same spread.

    Of tokens that count.
    """
    parts = []
    for stage, kept in zip(stages, counts, strict=True):
        mean = np.stack([np.asarray(x, np.float64)[own].mean(0) for x, own in zip(stage, kept, strict=True)])
        mean = mean - mean.mean(0)
        parts.append(mean / np.sqrt((mean**2).sum(1).mean()))
    summary = np.concatenate(parts, axis=1)
    apart = ((summary[:, None] - summary[None]) ** 2).sum(-1)
    np.fill_diagonal(apart, np.inf)
    note_split("nearest samples", apart[:, : len(apart)], wanted)
    return [sorted(np.argsort(row, kind="stable")[:wanted].tolist()) for row in apart]


def pair_scores(features, scorers, precision, counts):
    """a[i] (M, R): distance of each token of sample i to the nearest token of each sample that scores it.

    Of both, tokens that count.
    """
    features = np.asarray(features)
    if precision == "fast":
        features = (features - features.reshape(-1, features.shape[-1]).mean(0)).astype(ml_dtypes.bfloat16)
        features = features.astype(np.float64)
    out = []
    features = [own[kept] for own, kept in zip(features, counts, strict=True)]
    for own, others in zip(features, scorers):
        apart = [np.sqrt(((own[:, None] - features[j][None]) ** 2).sum(-1)) for j in others]
        out.append(np.stack([d.min(1) for d in apart], axis=1))
    return out


def interval_average(scores, interval):
    """Mean of the lowest share of each row."""
    count = max(1, int(scores.shape[1] * interval))
    return np.sort(scores, axis=1)[:, :count].mean(1)


def _match(source, target):
    """`target` with each value replaced by the value of `source` that has the same rank."""
    flat = target.reshape(-1)
    order = np.argsort(flat, kind="stable")
    note("ranks of scores", np.diff(flat[order]))
    out = np.empty_like(flat)
    out[order] = np.sort(source.reshape(-1))
    return out.reshape(target.shape)


def _align(d2, d3, patch):
    """Each modality's scores at the places of the other; 0 for patches without a group."""
    x2 = np.zeros_like(d2)
    for m in range(len(d2)):
        if (patch == m).any():
            x2[m] = d3[patch == m].mean(0)
    return x2, d2[patch]


def _released(d, x, trust):
    """One modality's scores d, enhanced by the other's, x; rows of zeros have no counterpart and stay."""
    std = lambda a: a.std(1, ddof=1) if a.shape[1] > 1 else np.zeros(len(a))  # noqa: E731
    weight = 1 - _match(std(d), std(x)) if trust else np.ones(len(d))
    seen = x.sum(1) != 0
    matched = x.copy()
    matched[seen] = _match(d[seen], x[seen])
    matched = np.maximum(matched, d) * weight[:, None]
    return (d + _match(d, matched)) / 2


def _paper(d, x, seen, trust):
    """As printed: the other's scores stretched to the row's range."""
    out = []
    for own, other, has in zip(d, x, seen, strict=True):
        span = other.max() - other.min()
        scaled = (other - other.min()) / (span if span > 0 else 1) * (own.max() - own.min()) + own.min()
        scaled = scaled if has else np.zeros_like(scaled)
        out.append(own + (1 - scaled.std() if trust else 1) * np.maximum(scaled, own))
    return np.stack(out)


def enhance(d2, d3, patch, *, variant, trust):
    """CAE of one sample and stage, before the interval average."""
    x2, x3 = _align(d2, d3, patch)
    if variant == "released":
        return _released(d2, x2, trust), _released(d3, x3, trust)
    seen = np.isin(np.arange(len(d2)), patch)
    return _paper(d2, x2, seen, trust), _paper(d3, x3, np.ones(len(d3), bool), trust)


def salient(stages, scores, counts):
    """Of each sample the token with the highest score of those that count, at the second-to-last stage."""
    stage = stages[max(0, len(stages) - 2)]
    scores = np.where(counts, scores, -np.inf)
    note_split("highest token", -scores, 1)
    return np.stack([tokens[own.argmax()] for tokens, own in zip(stage, scores)])


def rescore(scores, features, *, windows, variant):
    """Scores, scaled to [0, 1], averaged over the most similar samples."""
    span = scores.max() - scores.min()
    scores = (scores - scores.min()) / (span if span > 0 else 1)
    similar = features @ features.T
    out = []
    for window in windows:
        if window == 1 and variant == "paper":
            out.append(scores)
            continue
        window = min(window, len(scores))
        note_split("similarities", -similar, window)
        kept = np.zeros_like(similar)
        for row, values in zip(kept, similar):
            best = np.argsort(-values, kind="stable")[:window]
            row[best] = values[best]
        out.append([row @ scores / row.sum() if row.sum() > 0 else own for row, own in zip(kept, scores)])
    return np.mean(out, axis=0)
