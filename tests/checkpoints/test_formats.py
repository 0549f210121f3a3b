"""Every family in every format it is passed around in, against PyTorch's model, stage by stage."""

import functools
import json

import checkpoint_formats as formats
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_formats import DEPTH, FAMILIES, NATIVE, PATCH, WIDTH
from plain_bicubic import naive_positions
from safetensors.numpy import load_file, save_file

import weights

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = [(NATIVE, NATIVE), (518, 518), (70, 126), (56, 56)]
BLOCKS = tuple(range(DEPTH))


def close(ours, theirs, what):
    assert ours.shape == tuple(theirs.shape), what
    worst = np.abs(np.asarray(ours) - np.asarray(theirs)).max() / np.abs(np.asarray(theirs)).max()
    assert worst < 1e-4, f"{what}: off by {worst:.1e} of the largest value"


class Case:
    """A model of PyTorch, its folder as transformers writes it, and its tokens."""

    def __init__(self, family, folder):
        self.family, self.folder = family, folder
        self.backbone = FAMILIES[family][0]
        self.model = formats.make(family)
        self.model.save_pretrained(folder)
        self.entries = load_file(folder / "model.safetensors")
        self.loaded = weights.load(folder, self.backbone)

    def images(self, size):
        return np.random.default_rng(7).normal(size=(1, *size, 3)).astype(np.float32)

    def stages(self, size):
        """The embeddings, then the tokens of every block as they are tapped, then the image embedding."""
        images = self.images(size)
        tower = getattr(self.model, "vision_model", self.model)
        clip = "clip" in self.family
        positions, norm = tower.embeddings, getattr(tower, "layernorm", getattr(tower, "norm", None))
        # DINO's and DINOv2's positions are resized by the original program's rule, not by what transformers made of it;
        # DINOv3 has none, and TIPSv2's rule is the same in both.
        if self.family in ("dino", "dinov2", "registers"):
            native = positions.position_embeddings.detach().numpy()[0]
            grid = tuple(side // PATCH for side in size)
            if self.family == "registers":
                square = torch.from_numpy(native[1:].reshape(NATIVE // PATCH, NATIVE // PATCH, -1)).permute(2, 0, 1)
                wanted = torch.nn.functional.interpolate(square[None], grid, mode="bicubic", antialias=True)[0]
                wanted = wanted.permute(1, 2, 0).reshape(-1, WIDTH).numpy()
            else:
                wanted = naive_positions(native[1:], grid, 0.0 if grid == (NATIVE // PATCH,) * 2 else 0.1)
            table = torch.from_numpy(np.concatenate([native[:1], wanted]).astype(np.float32))[None]
            positions.interpolate_pos_encoding = lambda *_: table
        options = {"interpolate_pos_encoding": True} if clip or self.family == "dino" else {}
        pixels = torch.from_numpy(np.moveaxis(images, 3, 1).copy())
        with torch.no_grad():
            out = tower(pixels, output_hidden_states=True, **options)
            states = list(out.hidden_states)
            skip = 1 + self.loaded.module.config.num_registers
            tapped = [state if clip else norm(state) for state in states[1:]]
            if hasattr(self.model, "visual_projection"):
                embedding = self.model.visual_projection(out.pooler_output)
            else:
                embedding = out.pooler_output if clip else out.last_hidden_state[:, 0]
        return images, states[0].numpy(), [t[:, skip:].numpy() for t in tapped], embedding.numpy()


@pytest.fixture(scope="module", params=[name for name in FAMILIES if name != "openclip"])
def case(request, tmp_path_factory):
    return Case(request.param, tmp_path_factory.mktemp(request.param))


@functools.cache
def compiled(module):
    """One program for all checkpoints of an architecture."""
    return jax.jit(module.apply, static_argnames=("blocks", "embedding", "point_norm"))


def apply(backbone, *arrays, **options):
    return compiled(backbone.module)(backbone.variables, *arrays, blocks=BLOCKS, **options)


@pytest.mark.parametrize("size", SIZES)
def test_every_stage_is_pytorchs(case, size):
    images, start, tapped, embedding = case.stages(size)
    net = case.loaded
    watched = functools.partial(
        net.module.apply,
        blocks=BLOCKS,
        embedding=True,
        capture_intermediates=lambda _, method: method == "_embed",
        mutable=["intermediates"],
    )
    (tokens, summary), seen = jax.jit(watched)(net.variables, images)
    close(seen["intermediates"]["_embed"][0], start, "embeddings")
    for block, (ours, theirs) in enumerate(zip(tokens, tapped, strict=True)):
        close(ours, theirs, f"block {block}")
    close(summary, embedding, "image embedding")


def zip_file(path, entries, **extra):
    torch.save({k: torch.from_numpy(v) for k, v in entries.items()} | extra, path)


def legacy_file(path, entries, **extra):
    tensors = {k: torch.from_numpy(v) for k, v in entries.items()} | extra
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


def safetensors_file(path, entries):
    save_file(entries, path)


WRITERS = {"safetensors": safetensors_file, "pth": zip_file, "legacy.pth": legacy_file}


def namings(case):
    """The same entries under every name there is for them."""
    yield "transformers", case.entries
    if case.family == "dino":
        own = formats.original_dino(case.entries)
        yield "original", own
        yield "wrapped", {f"module.backbone.{k}": v for k, v in own.items()}
        yield "timm", own | {"head.weight": np.ones((3, WIDTH), np.float32)}
    elif case.family == "dinov2":
        yield "original and timm", formats.original_dino(case.entries)
    elif case.family == "registers":
        yield "original", formats.original_dino(case.entries)
        yield "timm", formats.timm_registers(case.entries)
    elif case.family == "tipsv2":
        dinov2s = {k.replace("c_fc", "fc1").replace("c_proj", "fc2"): v for k, v in case.entries.items()}
        yield "TIPSv2, as DINOv2", dinov2s
        text = {"text_encoder.ln_final.weight": np.ones(3, np.float32), "temperature": np.ones((), np.float32)}
        yield "of the hub", {f"vision_encoder.{k}": v for k, v in case.entries.items()} | text
        yield "timm", formats.timm_own_registers(dinov2s)
    elif case.family == "dinov3":
        yield "Meta", formats.meta_dinov3(case.entries, masked=True)
        # The satellite model has two norms of the class token, one of which is for training.
        untied = {f"local_cls_norm.{part}": np.full(WIDTH, 9, np.float32) for part in ("weight", "bias")}
        yield "Meta, of the satellite model", formats.meta_dinov3(case.entries, masked=True) | untied
        yield "timm", formats.timm_dinov3(case.entries)
    elif case.family == "dinov3_gated":
        yield "Meta", formats.meta_dinov3(case.entries, masked=False)
    elif case.family in ("clip", "clip_alone"):
        yield "OpenAI", formats.openai_clip(case.entries)
        yield "OpenAI's image tower", formats.openai_clip(case.entries, "")
        yield "timm", formats.timm_clip(case.entries)
    # What torch.save makes of a model in memory, whose names transformers 5 has changed.
    yield "state_dict()", {k: np.ascontiguousarray(v.numpy()) for k, v in case.model.state_dict().items()}


def test_every_naming_and_format_gives_the_same_tokens(case, tmp_path):
    images, _, tapped, _ = case.stages(SIZES[0])
    heads = {"heads": formats.HEADS, "norm_epsilon": case.loaded.module.config.norm_epsilon}
    heads["activation"] = case.loaded.module.config.activation
    tried = 0
    for naming, entries in namings(case):
        for ending, write in WRITERS.items():
            file = tmp_path / f"{tried}.{ending}"
            write(file, entries)
            net = weights.load(file, case.backbone, **heads)
            for block, (ours, theirs) in enumerate(zip(apply(net, images), tapped, strict=True)):
                close(ours, theirs, f"{naming} in {ending}, block {block}")
            tried += 1
    assert tried >= 6


def test_openclips_files_are_read_with_its_own_activation(tmp_path):
    """As its training saved them; GELU is the table's where nothing beside the file says another."""
    case = Case("openclip", tmp_path / "model")
    images, _, tapped, embedding = case.stages(SIZES[0])
    entries = {f"module.{k}": torch.from_numpy(v) for k, v in formats.openai_clip(case.entries).items()}
    torch.save({"epoch": 31, "name": "ViT-B-16-plus-240", "state_dict": entries}, tmp_path / "w.pt")
    net = weights.load(tmp_path / "w.pt", case.backbone, heads=formats.HEADS)
    tokens, summary = apply(net, images, embedding=True)
    for block, (ours, theirs) in enumerate(zip(tokens, tapped, strict=True)):
        close(ours, theirs, f"block {block}")
    close(summary, embedding, "image embedding")


def test_a_folder_with_pytorchs_file(case, tmp_path):
    """pytorch_model.bin where there is no safetensors, as older repositories have it."""
    (tmp_path / "config.json").write_bytes((case.folder / "config.json").read_bytes())
    zip_file(tmp_path / "pytorch_model.bin", case.entries)
    other = weights.load(tmp_path, case.backbone)
    assert other.module.config == case.loaded.module.config
    same(other, case.loaded)


def same(one, other):
    assert jax.tree.structure(one.variables) == jax.tree.structure(other.variables)
    for a, b in zip(jax.tree.leaves(one.variables), jax.tree.leaves(other.variables), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize("ending", ["safetensors", "pth", "legacy.pth"])
def test_half_precision_is_widened(case, tmp_path, precision, ending):
    """The parameters are those of the file, exactly, as float32."""
    from safetensors.torch import save_file as save_torch

    half = {k: torch.from_numpy(v).to(getattr(torch, precision)) for k, v in case.entries.items()}
    (tmp_path / "config.json").write_bytes((case.folder / "config.json").read_bytes())
    file = tmp_path / ("model.safetensors" if ending == "safetensors" else "pytorch_model.bin")
    if ending == "safetensors":
        save_torch(half, file)
    else:
        torch.save(half, file, _use_new_zipfile_serialization=ending == "pth")
    rounded = tmp_path / "rounded"
    rounded.mkdir()
    (rounded / "config.json").write_bytes((case.folder / "config.json").read_bytes())
    save_file({k: v.float().numpy() for k, v in half.items()}, rounded / "model.safetensors")
    same(weights.load(tmp_path, case.backbone), weights.load(rounded, case.backbone))


def two_percent(rough, plain):
    assert rough.dtype == np.float32
    assert 0 < np.linalg.norm(rough - plain) < 0.02 * np.linalg.norm(plain)


def test_bfloat16_stays_within_two_percent(case):
    images = case.images((NATIVE, NATIVE))
    half = weights.load(case.folder, case.backbone, dtype="bfloat16")
    for rough, plain in zip(apply(half, images), apply(case.loaded, images), strict=True):
        two_percent(rough, plain)


# Point-MAE


@pytest.fixture(scope="module")
def point_mae():
    model = formats.point_mae()
    return model, {k: v.numpy() for k, v in model.state_dict().items()}


def point_stages(model, sizes):
    rng = np.random.default_rng(3)
    groups = (0.1 * rng.normal(size=(*sizes, 3))).astype(np.float32)
    centers = rng.normal(size=(sizes[0], 3)).astype(np.float32)
    with torch.no_grad():
        return groups, centers, [s.numpy() for s in model(torch.from_numpy(groups), torch.from_numpy(centers))]


@pytest.mark.parametrize("sizes", [(64, 32), (40, 128), (7, 5)])
def test_every_stage_of_point_mae(point_mae, tmp_path, sizes):
    model, entries = point_mae
    zip_file(tmp_path / "pointmae_pretrain.pth", entries)
    net = weights.load(tmp_path / "pointmae_pretrain.pth", "point_mae", heads=3)
    groups, centers, (encoded, *tapped) = point_stages(model, sizes)
    from musc_jax.models.group_encoder import GroupEncoder

    encoder = {kind: values["encoder"] for kind, values in net.variables.items()}
    close(GroupEncoder(net.module.config).apply(encoder, jnp.asarray(groups), "checkpoint"), encoded, "encoder")
    tokens = apply(net, groups, centers, point_norm="checkpoint")
    for block, (ours, theirs) in enumerate(zip(tokens, tapped, strict=True)):
        close(ours, theirs, f"block {block}")


def test_every_wrapping_of_point_mae(point_mae, tmp_path):
    """With and without `module.`, as trained and bare; the optimizer's storages are not even there."""
    model, entries = point_mae
    groups, centers, (_, *tapped) = point_stages(model, (9, 8))
    decoder = {"mask_token": np.ones((1, 1, 24), np.float32), "MAE_decoder.blocks.0.x": np.ones(3, np.float32)}
    decoder |= {"decoder_pos_embed.0.weight": np.ones(3, np.float32), "increase_dim.0.weight": np.ones(3, np.float32)}
    trained = {f"MAE_encoder.{k}": v for k, v in entries.items()} | decoder
    state = {"state": {0: {"exp_avg": torch.ones(50)}}, "param_groups": [{"lr": 0.1}]}
    training = {"epoch": 300, "optimizer": state, "metrics": {"acc": np.float64(0.9)}, "best_metrics": None}

    def wrapped(value, prefix=""):
        return {"base_model": {prefix + k: torch.from_numpy(v) for k, v in value.items()}} | training

    for index, content in enumerate(
        (
            wrapped(trained),
            wrapped(trained, "module."),
            {k: torch.from_numpy(v) for k, v in trained.items()},
            {k: torch.from_numpy(v) for k, v in entries.items()},
        )
    ):
        for zipped in (True, False):
            file = tmp_path / f"{index}{zipped}.pth"
            torch.save(content, file, _use_new_zipfile_serialization=zipped)
            net = weights.load(file, "point_mae", heads=3)
            tokens = apply(net, groups, centers, point_norm="checkpoint")
            for block, (ours, theirs) in enumerate(zip(tokens, tapped, strict=True)):
                close(ours, theirs, f"{index}, zip {zipped}, block {block}")
    save_file({f"module.{k}": v for k, v in trained.items()}, tmp_path / "w.safetensors")
    same(weights.load(tmp_path / "w.safetensors", "point_mae", heads=3), net)


def test_point_mae_in_bfloat16_stays_within_two_percent(point_mae, tmp_path):
    model, entries = point_mae
    zip_file(tmp_path / "w.pth", entries)
    groups, centers, _ = point_stages(model, (40, 32))
    plain, half = (weights.load(tmp_path / "w.pth", "point_mae", heads=3, dtype=d) for d in ("float32", "bfloat16"))
    for norm in ("cloud", "checkpoint"):
        out = [apply(net, groups, centers, point_norm=norm) for net in (half, plain)]
        for rough, exact in zip(*out, strict=True):
            two_percent(np.asarray(rough), np.asarray(exact))


def test_a_head_that_is_not_the_projection_is_refused(tmp_path):
    """timm's CLIP has its projection as a head without bias; a trained classifier there is something else."""
    model = formats.make("clip_alone")
    model.save_pretrained(tmp_path)
    entries = formats.timm_clip(load_file(tmp_path / "model.safetensors"))
    entries |= {"head.weight": np.ones((5, WIDTH), np.float32), "head.bias": np.ones(5, np.float32)}
    save_file(entries, tmp_path / "timm.safetensors")
    (tmp_path / "config.json").unlink()
    with pytest.raises(weights.WeightsError, match=r"head\.bias is not 0"):
        weights.load(tmp_path / "timm.safetensors", "clip_vitl14", heads=2)


def test_config_and_parameters_must_be_of_one_model(case, tmp_path):
    settings = json.loads((case.folder / "config.json").read_text())
    vision = settings.get("vision_config", settings)
    for field, value in (("num_hidden_layers", DEPTH + 1), ("hidden_size", 2 * WIDTH), ("patch_size", 16)):
        changed = (
            settings | {field: value} if vision is settings else settings | {"vision_config": vision | {field: value}}
        )
        (tmp_path / "config.json").write_text(json.dumps(changed))
        save_file(case.entries, tmp_path / "model.safetensors")
        with pytest.raises(weights.WeightsError, match=r"config\.json: says"):
            weights.load(tmp_path, case.backbone)
