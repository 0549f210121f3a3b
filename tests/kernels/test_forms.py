"""Every form of the kernels table against its statement, compiled as for users."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CASES

import musc_jax  # noqa: F401 - fills the table of operations
from musc_jax.kernels import FORMS, IMPLEMENTATIONS, OPERATIONS, operation

TABLE = [(name, platform) for name, forms in FORMS.items() for platform in forms]
pytestmark = pytest.mark.usefixtures("optimized")


def run(function, case, arrays=None):
    called = jax.jit(functools.partial(function, **case.options))
    return jax.tree.map(np.asarray, called(*(case.arrays if arrays is None else arrays)))


def agree(got, want, tolerance, case, said=""):
    for a, b in zip(jax.tree.leaves(case.seen(got)), jax.tree.leaves(case.seen(want)), strict=True):
        if not tolerance or a.dtype.kind in "iub":
            np.testing.assert_array_equal(a, b, err_msg=said)
            continue
        finite = b[np.isfinite(b)]
        atol = tolerance * max(np.abs(finite).max(initial=0), 1e-6)
        np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=said)


def test_every_operation_has_cases_and_every_form_an_operation():
    assert set(FORMS) <= set(OPERATIONS)
    assert set(CASES) == set(OPERATIONS), "an operation needs inputs in tests/kernels/cases.py"
    for name, forms in FORMS.items():
        assert set(forms) <= {"default", "cpu", "cuda", "rocm", "tpu"}, name
        for form in forms.values():
            assert form.reason
            assert 0 <= form.tolerance <= 1e-3


@pytest.mark.parametrize(("name", "platform"), TABLE)
def test_a_form_gives_what_its_statement_gives(name, platform):
    form = FORMS[name][platform]
    for i, case in enumerate(CASES[name]):
        want = run(OPERATIONS[name].statement, case)
        agree(run(form.function, case), want, form.tolerance, case, f"CASES[{name!r}][{i}], {case.options}")


@pytest.mark.parametrize(("name", "platform"), TABLE)
def test_a_form_is_mapped_as_in_a_loop(name, platform):
    """Over two calls, the second with everything turned around."""
    form, case = FORMS[name][platform], CASES[name][0]
    turned = jax.tree.map(lambda x: x[::-1] if np.ndim(x) else x, case.arrays)
    two = jax.tree.map(lambda *x: np.stack(x), case.arrays, turned)
    many = jax.jit(jax.vmap(functools.partial(form.function, **case.options)))(*two)
    for i, arrays in enumerate((case.arrays, turned)):
        own = jax.tree.map(lambda x, i=i: np.asarray(x[i]), many)
        agree(own, run(form.function, case, arrays), form.tolerance, case)


@pytest.mark.parametrize(("name", "platform"), [row for row in TABLE if any(case.smooth for case in CASES[row[0]])])
def test_a_form_has_its_statements_gradient_and_keeps_float64(name, platform):
    form = FORMS[name][platform]
    case = next(case for case in CASES[name] if case.smooth)
    with jax.enable_x64(True):
        arrays = [x.astype(np.float64) if x is not None and x.dtype == np.float32 else x for x in case.arrays]

        def loss(function, *chosen):
            given = [None if x is None else jnp.asarray(x) for x in arrays]
            for position, value in zip(case.smooth, chosen, strict=True):
                given[position] = value
            out, rng = jax.tree.leaves(function(*given, **case.options)), np.random.default_rng(1)
            assert all(x.dtype == jnp.float64 for x in out)
            return sum((x * rng.normal(size=x.shape)).sum() for x in out)

        chosen = [jnp.asarray(arrays[i]) for i in case.smooth]
        gradient = jax.jit(jax.grad(loss, argnums=tuple(range(1, len(chosen) + 1))), static_argnums=0)
        got, want = gradient(form.function, *chosen), gradient(OPERATIONS[name].statement, *chosen)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-9)
        rng = np.random.default_rng(2)
        direction = [rng.normal(size=x.shape) for x in chosen]
        value = jax.jit(loss, static_argnums=0)
        up, down = (
            value(form.function, *(x + s * d for x, d in zip(chosen, direction, strict=True))) for s in (1e-6, -1e-6)
        )
        along = sum((g * d).sum() for g, d in zip(got, direction, strict=True))
        assert float(up - down) / 2e-6 == pytest.approx(float(along), rel=1e-5, abs=1e-6)


def test_the_form_of_the_platform_is_taken(monkeypatch):
    @operation("made_up")
    def twice(x):
        return 2 * x

    try:
        row = FORMS["lowest_mean"]["default"]
        monkeypatch.setitem(FORMS, "made_up", {"cpu": row._replace(function=lambda x: x + 100)})
        one = jnp.ones(())
        assert twice(one) == 101
        assert twice(one, implementation="plain") == 2
        assert "add" not in jax.jit(twice).trace(one).lower(lowering_platforms=("cuda",)).as_text()
        monkeypatch.delitem(FORMS, "made_up")
        assert twice(one) == 2
        with pytest.raises(ValueError, match="implementation: expected one of auto, plain"):
            twice(one, implementation="fast")
        with pytest.raises(ValueError, match="stated twice"):
            operation("made_up")(twice.statement)
    finally:
        OPERATIONS.pop("made_up")


def test_implementations_are_those_two():
    assert IMPLEMENTATIONS == ("auto", "plain")
