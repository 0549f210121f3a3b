"""The backbones by name: architecture, where the parameters are published, and how images are fed to them."""

import dataclasses
from typing import Any

from musc_jax.models import PointTransformerConfig, VitConfig

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclasses.dataclass(frozen=True)
class BackboneSpec:
    """One row of the table.

    Attributes:
        name: What `--backbone` takes.
        family: "dino", "dinov2", "dinov3", "lingbot", "tipsv2", "clip" or "point_mae".
        config: The architecture.
        hub_id: Repository on the Hugging Face hub, "" where there is none.
        url: Original address that can be fetched and read, "" where there is none.
        licence: Of the parameters.
        terms: Where a licence stands that asks something of whoever passes the parameters on, "" for the others. Such
            parameters are converted into the local cache and nowhere else.
        ask_at: Where access has to be asked for, "" where everybody has it.
        given_file: What the file is called that one gets there.
        local_file: What that file is called on disk, where its own name says too little; "" for the same.
        sha256: Of the file at `url`, "" where none is published.
        revision: Of the repository. "main" is whatever is there; the commit is recorded with what was fetched.
        resize: How images, or maps of points, come to their size.
        torchscript_url: Original address of a file that holds code and is therefore not read.
        image_size: Side of the input by default.
        blocks, v1_blocks: 0-based blocks used by default, and by version 1.
        mean, std: Normalisation.
    """

    name: str
    family: str
    config: VitConfig | PointTransformerConfig
    hub_id: str
    url: str
    licence: str
    terms: str = ""
    ask_at: str = ""
    given_file: str = ""
    local_file: str = ""
    sha256: str = ""
    revision: str = "main"
    resize: str = "bicubic, to a square"
    torchscript_url: str = ""
    image_size: int = 224
    blocks: tuple[int, ...] = (3, 7, 11)
    v1_blocks: tuple[int, ...] = (2, 5, 8, 11)
    mean: tuple[float, float, float] = IMAGENET[0]
    std: tuple[float, float, float] = IMAGENET[1]

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names under which the parameters may lie in a weights folder, the most specific first."""
        names = [self.name, *(self.name + end for end in (".safetensors", ".pth", ".bin", ".npz"))]
        if self.hub_id:
            names.append(self.hub_id.split("/")[1])
        if self.family == "point_mae":
            names += ["pointmae_pretrain.safetensors", "pointmae_pretrain.pth", "pretrain.pth"]
        if self.url:
            names.append(self.download_name)
        if self.given_file:
            names.append(self.given_file)
        return tuple(dict.fromkeys(names))

    @property
    def origins(self) -> tuple[str, ...]:
        """The published places, the hub's first."""
        return ((f"https://huggingface.co/{self.hub_id}",) if self.hub_id else ()) + ((self.url,) if self.url else ())

    @property
    def download_name(self) -> str:
        """What the file at the original address is called on disk."""
        return self.local_file or self.url.rsplit("/", 1)[-1]


def spread(depth: int, count: int) -> tuple[int, ...]:
    """The last blocks of equal parts of a model, as 3, 7, 11 are of 12; all blocks of one with fewer."""
    return tuple(depth * (i + 1) // count - 1 for i in range(count)) if depth >= count else tuple(range(depth))


# Width, blocks, heads.
_SIZES = {
    "s": (384, 12, 6),
    "b": (768, 12, 12),
    "l": (1024, 24, 16),
    "h": (1280, 32, 20),
    "so400m": (1152, 27, 16),
    "g": (1536, 40, 24),
}


def _vit(size: str, patch: int, grid: int, **options: Any) -> VitConfig:
    width, depth, heads = _SIZES[size]
    options = {"mlp_width": 4 * width} | options
    return VitConfig(width=width, depth=depth, heads=heads, patch_size=patch, native_grid=grid, **options)


def _dino(size: str, patch: int) -> BackboneSpec:
    long = {"s": "deitsmall", "b": "vitbase"}[size]
    return BackboneSpec(
        name=f"dino_vit{size}{patch}",
        family="dino",
        config=_vit(size, patch, 224 // patch),
        hub_id=f"facebook/dino-vit{size}{patch}",
        url=f"https://dl.fbaipublicfiles.com/dino/dino_{long}{patch}_pretrain/dino_{long}{patch}_pretrain.pth",
        licence="Apache-2.0",
    )


def _dinov2(size: str, *, registers: bool) -> BackboneSpec:
    config = _vit(
        size,
        14,
        37,
        layer_scale=True,
        num_registers=4 if registers else 0,
        interpolation="antialias" if registers else "offset",
    )
    long = {"s": "small", "b": "base", "l": "large"}[size]
    model, suffix = f"dinov2_vit{size}14", "_reg4" if registers else ""
    return BackboneSpec(
        name=model + ("_reg" if registers else ""),
        family="dinov2",
        config=config,
        hub_id=f"facebook/dinov2-{'with-registers-' if registers else ''}{long}",
        url=f"https://dl.fbaipublicfiles.com/dinov2/{model}/{model}{suffix}_pretrain.pth",
        licence="Apache-2.0",
        image_size=518,
        blocks=(7, 15, 23) if size == "l" else (3, 7, 11),
        v1_blocks=(5, 11, 17, 23) if size == "l" else (2, 5, 8, 11),
    )


# What Meta's files end in.
_DINOV3_FILES = {
    "vits16": "08c60483",
    "vits16plus": "4057cbaa",
    "vitb16": "73cec8be",
    "vitl16": "8aa4cbdd",
    "vitl16_sat493m": "eadcf0ff",
    "vith16plus": "7c1da9a5",
}
_SATELLITE = ((0.430, 0.411, 0.296), (0.213, 0.156, 0.143))


def _dinov3(size: str, *, gated: bool = False, satellite: bool = False) -> BackboneSpec:
    config = _vit(
        size,
        16,
        14,
        norm_epsilon=1e-5,
        layer_scale=True,
        num_registers=4,
        interpolation="rotary",
        gated=gated,
    )
    model = f"vit{size}16" + "plus" * gated
    data = "sat493m" if satellite else "lvd1689m"
    mean, std = _SATELLITE if satellite else IMAGENET
    name = model + f"_{data}" * satellite
    return BackboneSpec(
        name=f"dinov3_{name}",
        family="dinov3",
        config=config,
        hub_id=f"facebook/dinov3-{model}-pretrain-{data}",
        url="",
        licence="DINOv3 License",
        terms="https://github.com/facebookresearch/dinov3/blob/main/LICENSE.md",
        ask_at="https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/",
        given_file=f"dinov3_{model}_pretrain_{data}-{_DINOV3_FILES[name]}.pth",
        # As many patches as the default backbone has at its size.
        image_size=448,
        blocks=spread(config.depth, 3),
        v1_blocks=spread(config.depth, 4),
        mean=mean,
        std=std,
    )


def _lingbot(size: str) -> BackboneSpec:
    """DINOv3's architecture; keys have a bias in the file, of 0."""
    long = {"s": "small", "b": "base", "l": "large"}[size]
    config = _vit(size, 16, 32, norm_epsilon=1e-5, layer_scale=True, num_registers=4, interpolation="rotary")
    return BackboneSpec(
        name=f"lingbot_vit{size}16",
        family="lingbot",
        config=config,
        hub_id="",
        url=f"https://huggingface.co/robbyant/lingbot-vision-vit-{long}/resolve/main/model.pt",
        licence="Apache-2.0",
        local_file=f"lbotv_vit_{long}.pt",
        image_size=512,
        blocks=spread(config.depth, 3),
        v1_blocks=spread(config.depth, 4),
    )


def _tipsv2(size: str, file: str, **options: Any) -> BackboneSpec:
    config = _vit(size, 14, 32, layer_scale=True, num_registers=1, interpolation="bilinear", **options)
    return BackboneSpec(
        name=f"tipsv2_vit{size}14",
        family="tipsv2",
        config=config,
        hub_id=f"google/tipsv2-{size}14",
        url=f"https://storage.googleapis.com/tips_data/v2_0/checkpoints/pytorch/tips_v2_oss_{file}_vision.npz",
        # By the project's README; timm lists the same parameters under Apache-2.0.
        licence="CC-BY-4.0",
        image_size=448,
        blocks=spread(config.depth, 3),
        v1_blocks=spread(config.depth, 4),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


# The hexadecimal part is the file's SHA-256.
_OPENAI_FILES = {
    "clip_vitl14_336": "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02/ViT-L-14-336px.pt",
    "clip_vitl14": "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836/ViT-L-14.pt",
    "clip_vitb16": "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f/ViT-B-16.pt",
    "clip_vitb32": "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt",
}


def _clip(size: str, patch: int, *, native: int = 224, image_size: int = 224) -> BackboneSpec:
    config = _vit(
        size,
        patch,
        native // patch,
        norm_epsilon=1e-5,
        activation="quick_gelu",
        patch_bias=False,
        pre_norm=True,
        projection=768 if size == "l" else 512,
        interpolation="size",
    )
    long = {"b": "base", "l": "large"}[size]
    name = f"clip_vit{size}{patch}" + ("_336" if native == 336 else "")
    return BackboneSpec(
        name=name,
        family="clip",
        config=config,
        hub_id=f"openai/clip-vit-{long}-patch{patch}" + ("-336" if native == 336 else ""),
        url="",
        licence="MIT",
        torchscript_url=f"https://openaipublic.azureedge.net/clip/models/{_OPENAI_FILES[name]}",
        image_size=image_size,
        blocks=(7, 15, 23) if size == "l" else (3, 7, 11),
        v1_blocks=(5, 11, 17, 23) if size == "l" else (2, 5, 8, 11),
        mean=OPENAI[0],
        std=OPENAI[1],
    )


_SPECS = (
    _dino("b", 8),
    _dino("b", 16),
    _dino("s", 8),
    _dino("s", 16),
    *(_dinov2(size, registers=registers) for size in "sbl" for registers in (False, True)),
    *(
        _dinov3(size, gated=gated)
        for size, gated in (("s", False), ("s", True), ("b", False), ("l", False), ("h", True))
    ),
    _dinov3("l", satellite=True),
    *(_lingbot(size) for size in "sbl"),
    _tipsv2("b", "b14"),
    _tipsv2("l", "l14"),
    _tipsv2("so400m", "so14", mlp_width=4304),
    _tipsv2("g", "g14", mlp_width=4096, gated=True),
    _clip("l", 14, native=336, image_size=518),
    _clip("l", 14),
    _clip("b", 16),
    _clip("b", 32),
    BackboneSpec(
        name="clip_vitb16_plus_240",
        family="clip",
        # OpenCLIP's, with PyTorch's own GELU.
        config=VitConfig(
            width=896,
            depth=12,
            heads=14,
            mlp_width=3584,
            patch_size=16,
            native_grid=15,
            norm_epsilon=1e-5,
            patch_bias=False,
            pre_norm=True,
            projection=640,
            interpolation="size",
        ),
        hub_id="timm/vit_base_patch16_plus_clip_240.laion400m_e31",
        url="https://github.com/mlfoundations/open_clip/releases/download/v0.2-weights/"
        "vit_b_16_plus_240-laion400m_e31-8fb26589.pt",
        licence="MIT",
        image_size=240,
        mean=OPENAI[0],
        std=OPENAI[1],
    ),
    BackboneSpec(
        name="point_mae",
        family="point_mae",
        config=PointTransformerConfig(),
        hub_id="",
        url="https://github.com/Pang-Yatian/Point-MAE/releases/download/main/pretrain.pth",
        licence="MIT",
        local_file="pointmae_pretrain.pth",
        resize="nearest, to a square",
        v1_blocks=(),
    ),
)

BACKBONES: dict[str, BackboneSpec] = {spec.name: spec for spec in _SPECS}
