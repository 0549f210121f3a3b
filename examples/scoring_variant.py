"""A variant of the scoring, composed of the library's functions under one `jit`: python examples/scoring_variant.py.

Each patch is scored by the samples that look most like its own sample (cosine of their mean tokens), instead of by all
others. Everything is pure, so it is one program, and `vmap` and `grad` go through it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import musc_jax as m


@partial(jax.jit, static_argnames=("nearest", "interval"))
def score_by_similar(
    tokens: Float[Array, "N M C"], *, nearest: int = 5, interval: float = 0.3
) -> tuple[Float[Array, "N M"], Float[Array, "N"]]:
    """Scores of the patches and, re-scored, of the samples.

    Args:
        tokens: Of one stage, patch by patch.
        nearest: How many samples score each.
        interval: Share of the lowest scores that is averaged (paper, eq. 8).
    """
    features = jax.vmap(m.snamd_grid)(tokens)  # eq. 5-6
    means = features.mean(1)
    means = means / jnp.linalg.norm(means, axis=-1, keepdims=True)
    alike = means @ means.T - 2 * jnp.eye(len(means), dtype=means.dtype)  # never itself
    references = jax.lax.top_k(alike, nearest)[1]  # (N, nearest)

    def of_one(query: Float[Array, "M C"], chosen: Array) -> Float[Array, "M"]:
        return m.interval_average(m.pair_scores(query, features[chosen]), interval=interval)  # eq. 7-8

    scores = jax.lax.map(lambda pair: of_one(*pair), (features, references))  # a sample at a time: memory stays small
    salient = jnp.take_along_axis(features, scores.argmax(1)[:, None, None], axis=1)[:, 0]
    return scores, m.rescore(scores.max(1), salient)  # eq. 12-17


def main() -> np.ndarray:
    """Two kinds of parts, and one part with a defect: its kind alone has to explain it."""
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(2, 49, 32))
    tokens = kinds[np.arange(12) % 2] + rng.normal(0, 0.1, (12, 49, 32))
    tokens[4, 24] = kinds[1, 24]  # normal for the other kind, wrong for this one
    scores, samples = score_by_similar(jnp.asarray(tokens, jnp.float32))
    found = np.asarray(scores)
    sample, patch = np.unravel_index(found.argmax(), found.shape)
    print(f"worst patch: {patch} of sample {sample}; sample scores {np.round(np.asarray(samples), 3)}")
    return found


if __name__ == "__main__":
    main()
