"""Point maps to groups: normalisation, farthest points, curvature, IPG (eq. 1-4)."""

import numpy as np

from statement.margins import note, note_split


def normalize(point_map):
    """(points (P, 3), valid (P,)): centred on the mean, divided by the largest norm."""
    points = np.asarray(point_map, np.float64).reshape(-1, 3)
    valid = (points[:, 0] != 0) & (points[:, 1] != 0) & (points[:, 2] != 0)
    points = points - points[valid].mean(0)
    points = points / np.sqrt((points[valid] ** 2).sum(1)).max()
    return np.where(valid[:, None], points, 0), valid


def distances(a, b):
    """Euclidean, by direct differences, (A, B)."""
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1))


def farthest_points(points, valid, count, *, variant):
    """Pixels of the centres; the first valid one, then always the farthest from those picked."""
    candidates = valid.copy()
    if variant == "released":
        norms = np.sqrt((points**2).sum(1))
        note("norms of points", norms[valid] - np.sqrt(1e-3))
        candidates &= norms**2 > 1e-3
    picked = [int(np.flatnonzero(valid)[0])]
    while len(picked) < count:
        nearest = distances(points, points[picked]).min(1)
        nearest[~candidates] = -np.inf
        note_split("distances of points", -nearest, 1)
        picked.append(int(nearest.argmax()))
    return np.array(picked)


def curvature(neighbors, center):
    """Smallest eigenvalue's share of the covariance of a group's neighbours, without the centre."""
    relative = neighbors - center
    relative = relative / max(np.sqrt((relative**2).sum(1)).max(), 1e-12)
    eigenvalues = np.linalg.eigvalsh(np.cov(relative.T, ddof=1))
    return eigenvalues[0] / (eigenvalues.sum() + 1e-12)


def _nearest(to_center, count):
    """Positions of the `count` nearest, nearest first."""
    note_split("distances of points", to_center, count)
    return np.argsort(to_center, kind="stable")[:count]


def _expand_released(points, near, size, step):
    """Candidates are the 2K nearest; one point for each of the smallest (member, candidate) distances."""
    members = list(near[:step])
    while len(members) < size:
        open_ = near[~np.isin(near, members)]
        pairs = distances(points[members], points[open_])
        add = min(step, size - len(members))
        note_split("distances of points", pairs.reshape(-1), add)
        chosen = np.argsort(pairs.reshape(-1), kind="stable")[:add]
        members += [open_[pair % len(open_)] for pair in chosen]
    return members


def _expand_paper(points, everyone, near, size, step):
    """Every point of the cloud is a candidate, once, by its distance to the group."""
    members = list(near[:step])
    while len(members) < size:
        open_ = everyone[~np.isin(everyone, members)]
        to_group = distances(points[members], points[open_]).min(0)
        add = min(step, size - len(members))
        members += [open_[i] for i in _nearest(to_group, add)]
    return members


def groups(points, valid, centers, *, group_size, k_iter, curvature_threshold, variant, expansion):
    """(G, K) pixels of each group's points, and (G,) its curvature."""
    everyone = np.flatnonzero(valid)
    found, bends = [], []
    for center in centers:
        to_center = distances(points[everyone], points[[center]])[:, 0]
        near = everyone[_nearest(to_center, 2 * group_size)]
        note_split("distances of points", to_center, group_size)
        bend = curvature(points[near[1:group_size]], points[center])
        note("curvature", bend - curvature_threshold)
        members = near[:group_size]
        if expansion and bend >= curvature_threshold and k_iter < group_size:
            note_split("distances of points", to_center, k_iter)
            if variant == "released":
                members = _expand_released(points, near, group_size, k_iter)
            else:
                members = _expand_paper(points, everyone, near, group_size, k_iter)
        found.append(members)
        bends.append(bend)
    return np.array(found), np.array(bends)
