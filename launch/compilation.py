"""Compiled programs are kept on disk, so that the next run of a command does not compile them again."""

import hashlib
import os
import platform
import tempfile
import warnings
from pathlib import Path

import jax

# Below this, reading a program back is hardly faster than compiling it.
_WORTH_KEEPING_SECONDS = 0.1


def keep_programs(cache_dir: Path) -> None:
    """Lets JAX keep what it compiles in a folder of the cache, and look there first.

    What lies there is run as it is, so it belongs into the user's own cache. Nothing depends on it: what cannot be read
    is compiled, and where nothing can be written nothing is kept, both without a word. Who has set
    `JAX_COMPILATION_CACHE_DIR` (or `jax_compilation_cache_dir`) has decided already.

    Args:
        cache_dir: The cache; the folder is `compiled` in it, with one for each kind of processor.
    """
    # JAX would report every single program that it cannot read or write, and go on.
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    if jax.config.values["jax_compilation_cache_dir"] is None:
        folder = cache_dir / "compiled" / _processor()
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError:
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    for name, value in (
        ("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING_SECONDS),
        ("jax_persistent_cache_min_entry_size_bytes", -1),
    ):
        if name.upper() not in os.environ:
            jax.config.update(name, value)


def _processor() -> str:
    """A name for what this machine's processor can do.

    JAX looks programs for a CPU up by everything but that. One compiled on a newer machine, found through a home folder
    that both share, ends in an illegal instruction.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    said = {line for line in lines if line.startswith(("model name", "flags", "CPU part", "Features"))}
    return hashlib.sha256("\n".join([platform.machine(), platform.processor(), *sorted(said)]).encode()).hexdigest()[
        :12
    ]
