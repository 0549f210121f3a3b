"""The whole session is strict: silent dtype or rank promotion and stray warnings are errors."""

import os
import socket
from pathlib import Path

import jax
import jaxtyping
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from jax._src import compiler

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# The suite compiles thousands of small programs and runs each a few times: most of its time would go into optimising.
# Commands that tests start inherit it. What is held against golden vectors is compiled as users have it, and so is all
# with JAX_DISABLE_MOST_OPTIMIZATIONS=0.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# As in the commands: the threads of DBSCAN's package never sleep again, and took half a core from the tests after it.
os.environ.setdefault("PARLAY_NUM_THREADS", "1")
UNOPTIMIZED = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1"
jax.config.update("jax_disable_most_optimizations", UNOPTIMIZED)
# Generates code for fused operations, and takes more than half of the compiler's time with it.
GENERATOR = "xla_cpu_use_fusion_emitters"


def _known(option):
    """JAX's releases differ in what their compiler can be told, and an unknown name ends a program."""
    try:
        jax.jit(lambda x: x).lower(np.zeros(1)).compile({option: False})
    except jax.errors.JaxRuntimeError:
        return False
    return hasattr(compiler, "get_compile_options")


@pytest.fixture(scope="session", autouse=True)
def compile_quickly():
    """Without that generator, here and in commands that tests start, wherever optimisations are left out, too."""
    if not (UNOPTIMIZED and _known(GENERATOR)):
        yield
        return
    plain = compiler.get_compile_options

    def get_compile_options(*arguments, **named):
        options = plain(*arguments, **named)
        if jax.config.values["jax_disable_most_optimizations"]:
            options.env_option_overrides = [*options.env_option_overrides, (GENERATOR, False)]
        return options

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", get_compile_options)
        patch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} --{GENERATOR}=false")
        yield


# The same examples in every run, and none fails for taking long: others may keep the machine busy. New ones are looked
# for by `--hypothesis-profile=search`.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch):
    """No test reaches beyond this machine, also where there is a network."""
    resolve = socket.getaddrinfo

    def local(host, *arguments, **options):
        if host not in ("127.0.0.1", "localhost", "::1", None):
            raise socket.gaierror(socket.EAI_NONAME, "not in tests")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", local)


@pytest.fixture
def golden(golden_values, optimized):
    """Read one file of the golden vectors by its name; what is held against them is compiled as users have it."""
    return golden_values


@pytest.fixture
def golden_values():
    """The same without compiling another way."""
    root = Path(__file__).parent / "golden"

    def read(name):
        with np.load(root / f"{name}.npz") as archive:
            return dict(archive)

    return read


@pytest.fixture
def optimized():
    """Compile as for users what this session has not compiled before."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", UNOPTIMIZED)


@pytest.fixture
def rng():
    """A generator that is the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture
def unchecked():
    """Without the run-time shape checks of this session, so that the library's own errors are seen."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
