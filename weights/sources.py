"""From what a user names - a file, a folder, "pretrained", "random" - to a backbone with parameters."""

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from filelock import FileLock
from flax.traverse_util import flatten_dict, unflatten_dict

from musc_jax._text import shown
from musc_jax.models import Backbone, PointTransformer, VisionTransformer, VitConfig
from musc_jax.storage.download import DownloadError, Progress, download
from weights import converted, hub
from weights.architecture import Architecture, check, describe
from weights.backbones import BACKBONES, BackboneSpec, spread
from weights.conversion import convert as convert_entries
from weights.conversion import scheme_of
from weights.converted import Provenance
from weights.errors import WeightsError
from weights.files import SAFETENSORS, Checkpoint, locate, read_entries
from weights.terms import by_hand, expect_local, notice

Report = Callable[[str], None]
Parameters = Iterable[tuple[str, np.ndarray]]
Stored = tuple[dict[str, np.ndarray], Provenance]


def load(
    path: str | os.PathLike,
    backbone: str,
    *,
    weights_dir: str | os.PathLike | None = None,
    cache_dir: str | os.PathLike | None = None,
    revision: str | None = None,
    seed: int = 0,
    dtype: str = "float32",
    activation: str | None = None,
    report: Report | None = None,
    progress: Progress | None = None,
    **overrides: Any,
) -> Backbone:
    """Loads a backbone.

    Args:
        path: A folder (config.json and model.safetensors or pytorch_model.bin), a file (safetensors, PyTorch's formats,
            or converted before), "pretrained", or "random" (seeded initial parameters, for demos and tests).
            "pretrained" is looked for in `weights_dir`, in $MUSC_WEIGHTS_DIR and among the converted ones in
            `cache_dir`, then taken from Hugging Face's cache or the network, then from its original address; what was
            fetched is kept, converted, in `cache_dir`.
        backbone: A name out of `BACKBONES`.
        weights_dir: Where "pretrained" looks first.
        cache_dir: Where converted parameters are kept; by default `default_folder()`.
        revision: Commit, tag or branch on Hugging Face, instead of the table's.
        seed: Of random parameters.
        dtype: Type of the operands of products, "float32", "bfloat16" or "float16".
        activation: "gelu" or "quick_gelu" instead of the family's own (CLIP).
        report: Told in a line what was tried and what was found.
        progress: Told how far a download is.
        overrides: Fields of the architecture, for example heads=3. What config.json or the shapes of the parameters
            say about it is followed without being asked; the number of heads shows in neither of a bare file.

    Returns:
        The module, its float32 parameters, and what a pipeline must know.

    Raises:
        WeightsError: An unknown backbone, nothing there, a broken file, another architecture; the message names the
            file and the way out.
    """
    spec = spec_of(backbone)
    known = {field.name for field in dataclasses.fields(spec.config)}
    if set(overrides) - known:
        raise WeightsError(
            f"{backbone}: no {', '.join(sorted(set(overrides) - known))}; it has {', '.join(sorted(known))}"
        )
    if activation is not None:
        overrides["activation"] = activation
    if os.fspath(path) == "random":
        return _random(spec, seed, dtype, overrides)
    if os.fspath(path) == "pretrained":
        places = [weights_dir, os.environ.get("MUSC_WEIGHTS_DIR")]
        store = _expanded(cache_dir) if cache_dir else default_folder()
        return _pretrained(spec, places, store, revision, dtype, overrides, report or _silent, progress)
    return _explicit(_path(path, "a path, 'pretrained' or 'random'"), spec, dtype, overrides)


def default_folder() -> Path:
    """Where converted parameters are kept unless said otherwise: the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "musc_jax" / "weights"


def spec_of(backbone: str) -> BackboneSpec:
    """A row of the table.

    Raises:
        WeightsError: No such row.
    """
    if backbone not in BACKBONES:
        raise WeightsError(f"backbone: expected one of {', '.join(BACKBONES)}; received {backbone!r}")
    return BACKBONES[backbone]


def convert(
    source: str | os.PathLike,
    backbone: str,
    output: str | os.PathLike,
    **overrides: Any,
) -> Provenance:
    """Converts a checkpoint to the file that loads fastest and needs nothing beside it.

    Args:
        source: As `path` of `load`: a file or a folder.
        backbone: A name out of `BACKBONES`.
        output: The file, ending in .safetensors; it is whole or not there at all.
        overrides: As with `load`.

    Returns:
        What the file says about itself: architecture, source and digest.

    Raises:
        WeightsError: As with `load`; an output that is named otherwise, that is the source, or cannot be written.
    """
    spec, target = spec_of(backbone), _expanded(output)
    if target.suffix != SAFETENSORS:
        raise WeightsError(f"{target}: expected a name that ends in {SAFETENSORS}")
    checkpoint = locate(_path(source, "a file or folder with a checkpoint"))
    if target.exists() and target.samefile(checkpoint.path):
        raise WeightsError(f"{target}: source and output are the same file; pass another --output")
    if converted.is_converted(checkpoint.path):
        raise WeightsError(f"{checkpoint.path}: converted already; it can be used as it is")
    expect_local(spec, target, f"pass --weights_rgb={checkpoint.path} itself")
    digest = checkpoint.digest()
    return _convert(spec, checkpoint, target, overrides, source=os.fspath(source), source_digest=digest)


def fetch(
    backbone: str,
    folder: str | os.PathLike | None = None,
    *,
    revision: str | None = None,
    report: Report | None = None,
    progress: Progress | None = None,
) -> Path:
    """Brings a backbone's published parameters to disk, converted, so that "pretrained" finds them without a network.

    Args:
        backbone: A name out of `BACKBONES`.
        folder: Where to; by default $MUSC_WEIGHTS_DIR, or `default_folder()`.
        revision: Commit, tag or branch on Hugging Face.
        report: Told in a line what was tried and what was found.
        progress: Told how far a download is.

    Returns:
        The file. One that is there and sound is left as it is.

    Raises:
        WeightsError: No source could be reached; names all of them, and what to do by hand.
    """
    spec, report = spec_of(backbone), report or _silent
    place = folder or os.environ.get("MUSC_WEIGHTS_DIR")
    target = _stored(_expanded(place) if place else default_folder(), spec)
    if target.parent.absolute() != default_folder().absolute():
        way_out = "leave out --weights_dir (MUSC_WEIGHTS_DIR), or put the published file there"
        expect_local(spec, target, way_out)
    if _usable(target, spec, revision, report, replace_own=False):
        report(f"{backbone}: there already")
    elif _fetch(spec, target, revision, report, progress) is not None:
        raise WeightsError(f"{target}: cannot be written; pass another folder")
    return target


def _expanded(given: str | os.PathLike) -> Path:
    try:
        return Path(given).expanduser()
    except RuntimeError:
        raise WeightsError(f"{shown(os.fspath(given))}: there is no such home folder") from None


def _path(given: str | os.PathLike, expected: str) -> Path:
    """What a user names as a path, if something is there."""
    path = _expanded(given)
    if "://" in os.fspath(given):
        raise WeightsError(f"{shown(given)}: an address; download it and pass the file")
    if not os.fspath(given) or not os.path.lexists(path):
        raise WeightsError(f"{shown(os.fspath(given) or repr(''))}: no such file or folder; pass {expected}")
    return path


def _silent(text: str) -> None:
    pass


def _stored(folder: Path, spec: BackboneSpec) -> Path:
    return folder / f"{spec.name}{SAFETENSORS}"


def _module(config: Architecture, dtype: str) -> VisionTransformer | PointTransformer:
    kind = VisionTransformer if isinstance(config, VitConfig) else PointTransformer
    return kind(config, dtype=dtype)


def _init(module: Any, seed: int) -> Callable[[], Any]:
    """Initialises the module on inputs of the smallest size."""
    c = module.config
    blocks = (c.depth - 1,)
    if isinstance(c, VitConfig):
        images = jnp.zeros((1, c.patch_size, c.patch_size, 3), jnp.float32)
        return lambda: module.init(jax.random.key(seed), images, blocks=blocks, embedding=True)
    groups, centers = jnp.zeros((2, 2, 3), jnp.float32), jnp.zeros((2, 3), jnp.float32)
    return lambda: module.init(jax.random.key(seed), groups, centers, blocks=blocks, point_norm="checkpoint")


@functools.cache
def _expected(config: Architecture) -> dict[str, tuple[int, ...]]:
    """Shapes by the paths the tables use: parameters bare, statistics below batch_stats."""
    # One block is traced and stands for all: tracing every one takes longer than reading the parameters.
    module = _module(dataclasses.replace(config, depth=1), "float32")
    shapes: dict[str, tuple[int, ...]] = {}
    for path, leaf in flatten_dict(jax.eval_shape(_init(module, 0)), sep="/").items():
        bare, block = path.removeprefix("params/"), "blocks_0/"
        inner = bare.removeprefix(block)
        names = [bare] if inner == bare else [f"blocks_{i}/{inner}" for i in range(config.depth)]
        shapes |= dict.fromkeys(names, leaf.shape)
    return shapes


def _backbone(spec: BackboneSpec, module: Any, variables: Any, **identity: Any) -> Backbone:
    depth = module.config.depth
    same_depth = depth == spec.config.depth
    return Backbone(
        module=module,
        variables=variables,
        name=spec.name,
        blocks=spec.blocks if same_depth else spread(depth, 3),
        v1_blocks=spec.v1_blocks if same_depth else spread(depth, 4),
        image_size=spec.image_size,
        mean=spec.mean,
        std=spec.std,
        **identity,
    )


def _random(spec: BackboneSpec, seed: int, dtype: str, overrides: Mapping[str, Any]) -> Backbone:
    module = _module(dataclasses.replace(spec.config, **overrides), dtype)
    variables = jax.jit(_init(module, seed))()
    # The drawn numbers depend on JAX's generator, so its version belongs to their identity.
    identity = repr((module.config, seed, jax.__version__))
    return _backbone(
        spec,
        module,
        variables,
        source=f"random, seed {seed}",
        digest=hashlib.sha256(identity.encode()).hexdigest(),
        random=True,
    )


def _loaded(
    spec: BackboneSpec, config: Architecture, parameters: Parameters, dtype: str, source: str, digest: str
) -> Backbone:
    """A backbone of read parameters; each goes to the device by itself, so that only one is in memory twice."""
    # Copied, because JAX would go on using the memory of a mapped file, which may be rewritten.
    paths = {
        (path if path.startswith("batch_stats/") else f"params/{path}"): jnp.array(value, jnp.float32, copy=True)
        for path, value in parameters
    }
    variables = unflatten_dict({tuple(path.split("/")): value for path, value in paths.items()})
    return _backbone(spec, _module(config, dtype), variables, source=source, digest=digest, random=False)


def _open(spec: BackboneSpec, checkpoint: Checkpoint, overrides: Mapping[str, Any]) -> tuple[Architecture, Parameters]:
    """What a checkpoint holds, and its parameters, not read yet."""
    path = checkpoint.path
    try:
        entries = read_entries(path)
        scheme = scheme_of(spec.family, entries, str(path))
        entries = {scheme.rename(name): entry for name, entry in entries.items()}
        config = describe(spec, scheme, entries, checkpoint, overrides)
        return config, convert_entries(entries, scheme, scheme.rules(config), _expected(config), str(path))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror or error})") from None


def _explicit(path: Path, spec: BackboneSpec, dtype: str, overrides: Mapping[str, Any]) -> Backbone:
    """What the user points at, used as it is; nothing is written."""
    checkpoint = locate(path)
    if converted.is_converted(checkpoint.path):
        return _from_converted(checkpoint.path, spec, dtype, overrides, source=str(path))
    config, parameters = _open(spec, checkpoint, overrides)
    return _loaded(spec, config, parameters, dtype, str(path), checkpoint.digest())


def _from_converted(
    path: Path,
    spec: BackboneSpec,
    dtype: str,
    overrides: Mapping[str, Any],
    *,
    source: str | None = None,
    content: Stored | None = None,
) -> Backbone:
    """A converted file; its content, where it is read and checked already: comparing checksums takes half the time."""
    values, provenance = content or converted.read(path, spec.name)
    config = dataclasses.replace(provenance.architecture, **overrides)
    check(config, str(path))
    shapes = {name: value.shape for name, value in values.items()}
    if shapes != _expected(config):
        raise WeightsError(f"{path}: its parameters are not those of its architecture; convert it again")
    return _loaded(spec, config, values.items(), dtype, source or provenance.source, provenance.source_digest)


def _convert(
    spec: BackboneSpec, checkpoint: Checkpoint, target: Path, overrides: Mapping[str, Any], **provenance: Any
) -> Provenance:
    """Converts a checkpoint to a file."""
    config, parameters = _open(spec, checkpoint, overrides)
    record = Provenance(backbone=spec.name, architecture=config, **provenance)
    converted.write(target, dict(parameters), record)
    return record


def _objection(path: Path, spec: BackboneSpec, provenance: Provenance, revision: str | None) -> str | None:
    """Why a sound stored file may not be used; None if it may."""
    if provenance.origin and provenance.origin not in spec.origins:
        return f"{path} comes from {provenance.origin}"
    wanted = revision or spec.revision
    if (revision or provenance.revision) and wanted != provenance.revision and f"@{wanted}/" not in provenance.source:
        return f"{path} is {provenance.source}, not revision {wanted}"
    return None


def _usable(
    path: Path, spec: BackboneSpec, revision: str | None, report: Report, *, replace_own: bool = True
) -> Stored | None:
    """A stored file's content, checked; None if there is none, or it must be made anew, with a word about why.

    Raises:
        WeightsError: It may not be used and, without `replace_own`, was converted from a file of the user, which
            nothing published under the same name may replace.
    """
    if not path.exists():
        return None
    try:
        stored = converted.read(path, spec.name)
        objection = _objection(path, spec, stored[1], revision)
    except WeightsError as problem:
        objection = str(problem)
    if objection is None:
        return stored
    if not replace_own and converted.is_converted(path) and converted.is_own(path):
        raise WeightsError(
            f"{path}: made from a file of your own, and not usable ({objection}); convert that file again, or move "
            f"this one away for the published parameters"
        )
    report(f"{spec.name}: made anew, because {objection}")
    return None


def _pretrained(
    spec: BackboneSpec,
    places: list[str | os.PathLike | None],
    store: Path,
    revision: str | None,
    dtype: str,
    overrides: Mapping[str, Any],
    report: Report,
    progress: Progress | None,
) -> Backbone:
    """The sources of published parameters, one after the other."""
    folders = [_expanded(place) for place in places if place]
    for folder in folders:
        if not folder.is_dir():
            raise WeightsError(
                f"{folder}: no such folder, though it is said to hold weights (--weights_dir, MUSC_WEIGHTS_DIR)"
            )
    target = _stored(store, spec)
    for folder in (*folders, store):
        stored = _stored(folder, spec)
        # In a user's folder a file of that name may also be one to convert.
        ours = converted.is_converted(stored) or folder == store
        content = _usable(stored, spec, revision, report, replace_own=folder == store) if ours else None
        if content is not None:
            report(f"{spec.name}: {stored}")
            return _from_converted(stored, spec, dtype, overrides, content=content)
        for name in spec.file_names:
            found = folder / name
            if not found.exists() or (ours and found == stored):
                continue
            report(f"{spec.name}: {found}")
            return _explicit(found, spec, dtype, overrides)
        if ours and stored.exists():
            if not spec.terms:
                target = stored
            break
    try:
        checkpoint = _fetch(spec, target, revision, report, progress)
    except WeightsError as error:
        looked = f"not in {', '.join(map(str, folders))}; " if folders else ""
        raise WeightsError(f"{spec.name}: no pretrained weights: {looked}{error}") from None
    if checkpoint is not None:
        config, parameters = _open(spec, checkpoint, overrides)
        return _loaded(spec, config, parameters, dtype, str(checkpoint.path), checkpoint.digest())
    return _from_converted(target, spec, dtype, overrides)


def _fetch(
    spec: BackboneSpec, target: Path, revision: str | None, report: Report, progress: Progress | None
) -> Checkpoint | None:
    """Fetches published parameters and converts them to `target`.

    Returns:
        None; or the checkpoint, where it is sound but `target` cannot be written.

    Raises:
        WeightsError: Nothing worked; says what was tried and what to do by hand.
    """
    tried = []
    if (said := notice(spec)) is not None:
        report(said)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a folder that cannot be written is said later, by name
            target.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(FileLock(target.with_name(f".{target.name}.lock")))
            if _usable(target, spec, revision, _silent):
                return None  # another process was faster
        for source in (_from_hub, _from_address):
            try:
                found = source(spec, target.parent, revision, report, progress)
                if found is None:
                    continue
                checkpoint, provenance = found
                _convert(spec, checkpoint, target, {}, **provenance)
            except converted.CannotWriteError as error:
                report(f"{spec.name}: not kept: {error}")
                return checkpoint
            except WeightsError as error:
                tried.append(str(error))
                continue
            report(f"{spec.name}: from {provenance['source']}, converted to {target}")
            return None
    raise WeightsError(f"{'; '.join(tried)}; {by_hand(spec)}")


Found = tuple[Checkpoint, dict[str, Any]]


def _from_hub(
    spec: BackboneSpec, folder: Path, revision: str | None, report: Report, progress: Progress | None
) -> Found | None:
    if not spec.hub_id:
        return None
    revision = revision or spec.revision
    report(f"{spec.name}: trying {spec.origins[0]}, revision {revision}")
    try:
        file = hub.fetch(spec.hub_id, revision)
    except hub.HubError as error:
        raise WeightsError(f"Hugging Face: {error}") from None
    provenance = {
        "source": file.label,
        "origin": spec.origins[0],
        "revision": revision,
        "source_digest": file.checkpoint.digest(file.digest),
    }
    return file.checkpoint, provenance


def _from_address(
    spec: BackboneSpec, folder: Path, revision: str | None, report: Report, progress: Progress | None
) -> Found | None:
    if not spec.url or revision is not None:
        return None  # an address knows nothing of revisions
    report(f"{spec.name}: trying {spec.url}")
    try:
        file = download(spec.url, folder / spec.download_name, sha256=spec.sha256 or None, progress=progress)
    except DownloadError as error:
        raise WeightsError(str(error)) from None
    checkpoint = locate(file)
    provenance = {"source": spec.url, "origin": spec.url, "source_digest": checkpoint.digest()}
    return checkpoint, provenance
