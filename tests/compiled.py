"""The library's functions, compiled.

Run eagerly, every primitive of a function is compiled on its own, and the suite spends five times as long in the
compiler. `test_api.py` shows that both forms agree; the other tests call the compiled one.
"""

import functools
import inspect

import jax
import numpy as np

import musc_jax


def _is_array(value):
    return isinstance(value, np.ndarray | jax.Array)


@functools.cache
def _compile(name, positions, fixed, options, arrays):
    """One jitted function for each choice of what is static."""

    def call(values, array_options):
        values, constants = iter(values), dict(fixed)
        args = [constants[i] if i in constants else next(values) for i in range(positions)]
        return getattr(musc_jax, name)(*args, **dict(options), **dict(zip(arrays, array_options, strict=True)))

    return jax.jit(call)


def _compiled(name):
    def call(*args, **options):
        arrays = tuple(sorted(k for k, v in options.items() if _is_array(v)))
        static = tuple(sorted((k, v) for k, v in options.items() if k not in arrays))
        fixed = tuple((i, v) for i, v in enumerate(args) if not _is_array(v))
        compiled = _compile(name, len(args), fixed, static, arrays)
        return compiled([v for v in args if _is_array(v)], [options[k] for k in arrays])

    return call


class _Library:
    def __getattr__(self, name):
        value = getattr(musc_jax, name)
        return _compiled(name) if inspect.isfunction(value) else value


m = _Library()


@functools.partial(jax.jit, static_argnums=(0, 1))
def _apply(module, options, variables, arrays):
    return module.apply(variables, *arrays, **dict(options))


def tokens_of(backbone, *arrays, **options):
    """What a backbone's module gives; one program for all parameters of an architecture."""
    return _apply(backbone.module, tuple(sorted(options.items())), backbone.variables, arrays)
