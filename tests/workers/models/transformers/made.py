"""Hugging Face folders of small networks with random weights, as `save_pretrained` writes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from workers.models.transformers.network import quiet_and_offline

LABELS = {0: "cat", 1: "dog", 2: "red car", 3: "tree", 4: "N/A"}
_NAMES = {"id2label": LABELS, "label2id": {name: i for i, name in LABELS.items()}}
_TRANSFORMER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_PATCHES = {**_TRANSFORMER, "image_size": 64, "patch_size": 16}
_TEXT = {**_TRANSFORMER, "vocab_size": 99, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_DECODER = {
    "d_model": 32,
    "num_queries": 12,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}
_HYBRID = {
    "encoder_hidden_dim": 32,
    "encoder_in_channels": [8, 16, 16],
    "encoder_ffn_dim": 64,
    "encoder_attention_heads": 4,
    "decoder_in_channels": [32, 32, 32],
    "decoder_ffn_dim": 64,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "d_model": 32,
    "num_queries": 30,
    "anchor_image_size": None,
    "hidden_expansion": 0.5,
}
_SQUARE = {"size": {"height": 64, "width": 64}}
_CROP = {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}
_FREE = {"size": {"shortest_edge": 64, "longest_edge": 110}}


def _resnet(*stages: str) -> dict[str, Any]:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
    return {"model_type": "resnet", **sizes, "out_features": list(stages)}


_RT_RESNET = {**_resnet("stage2", "stage3", "stage4"), "model_type": "rt_detr_resnet"}
_HGNET = {
    "model_type": "hgnet_v2",
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 8, 8, 16],
    "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [8, 8, 16, 16],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_numb_of_layers": [1, 1, 1, 1],
    "out_features": ["stage2", "stage3", "stage4"],
    "hidden_sizes": [8, 8, 16, 16],
}

Made = tuple[str, dict[str, Any], str, dict[str, Any]]
"""The class of a network, its settings, the class of an image processor, its settings."""

CLASSIFIERS: dict[str, Made] = {
    "vit": ("ViTForImageClassification", {**_PATCHES, **_NAMES}, "ViTImageProcessor", _SQUARE),
    "vit, several labels": (
        "ViTForImageClassification",
        {**_PATCHES, **_NAMES, "problem_type": "multi_label_classification"},
        "ViTImageProcessor",
        _SQUARE,
    ),
    "swin": (
        "SwinForImageClassification",
        {
            "image_size": 64,
            "embed_dim": 16,
            "depths": [1, 1],
            "num_heads": [2, 4],
            "window_size": 4,
            **_NAMES,
        },
        "ViTImageProcessor",
        _SQUARE,
    ),
    "dinov2": ("Dinov2ForImageClassification", {**_PATCHES, **_NAMES}, "BitImageProcessor", _CROP),
    "convnext": (
        "ConvNextForImageClassification",
        {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], **_NAMES},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
    ),
    "resnet": (
        "ResNetForImageClassification",
        {**_resnet(), "out_features": None, **_NAMES},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
    ),
    "beit": ("BeitForImageClassification", {**_PATCHES, **_NAMES}, "BeitImageProcessor", _SQUARE),
    "siglip": (
        "SiglipForImageClassification",
        {"vision_config": _PATCHES, "text_config": _TEXT, **_NAMES},
        "SiglipImageProcessor",
        _SQUARE,
    ),
    "mobilenet_v2": (
        "MobileNetV2ForImageClassification",
        {"image_size": 64, "depth_multiplier": 0.25, "min_depth": 8, "tf_padding": True, **_NAMES},
        "MobileNetV2ImageProcessor",
        _CROP,
    ),
}

DETECTORS: dict[str, Made] = {
    "detr": (
        "DetrForObjectDetection",
        {**_DECODER, "use_timm_backbone": False, "backbone_config": _resnet("stage4"), **_NAMES},
        "DetrImageProcessor",
        _FREE,
    ),
    "detr, padded to one size": (
        "DetrForObjectDetection",
        {**_DECODER, "use_timm_backbone": False, "backbone_config": _resnet("stage4"), **_NAMES},
        "DetrImageProcessor",
        {**_FREE, "pad_size": {"height": 110, "width": 110}},
    ),
    "conditional detr": (
        "ConditionalDetrForObjectDetection",
        {**_DECODER, "use_timm_backbone": False, "backbone_config": _resnet("stage4"), **_NAMES},
        "ConditionalDetrImageProcessor",
        _FREE,
    ),
    "deformable detr": (
        "DeformableDetrForObjectDetection",
        {
            **_DECODER,
            "num_feature_levels": 3,
            "backbone_config": _resnet("stage2", "stage3", "stage4"),
            **_NAMES,
            "use_timm_backbone": False,
        },
        "DeformableDetrImageProcessor",
        _FREE,
    ),
    "yolos": (
        "YolosForObjectDetection",
        {**_TRANSFORMER, "image_size": [64, 96], "patch_size": 16, "num_detection_tokens": 10, **_NAMES},
        "YolosImageProcessor",
        _FREE,
    ),
    "rt-detr": (
        "RTDetrForObjectDetection",
        {**_HYBRID, "backbone_config": _RT_RESNET, **_NAMES},
        "RTDetrImageProcessor",
        {"size": {"height": 96, "width": 96}, "do_normalize": False},
    ),
    "rt-detr v2": (
        "RTDetrV2ForObjectDetection",
        {**_HYBRID, "backbone_config": _RT_RESNET, **_NAMES},
        "RTDetrImageProcessor",
        {"size": {"height": 96, "width": 96}, "do_normalize": False},
    ),
    "d-fine": (
        "DFineForObjectDetection",
        {**_HYBRID, "backbone_config": _HGNET, **_NAMES},
        "RTDetrImageProcessor",
        {"size": {"height": 96, "width": 96}, "do_normalize": False},
    ),
}

EMBEDDERS: dict[str, Made] = {
    "clip": (
        "CLIPModel",
        {"vision_config": _PATCHES, "text_config": _TEXT, "projection_dim": 16},
        "CLIPImageProcessor",
        _CROP,
    ),
    "clip vision": (
        "CLIPVisionModelWithProjection",
        {**_PATCHES, "projection_dim": 16},
        "CLIPImageProcessor",
        _CROP,
    ),
    "siglip": (
        "SiglipModel",
        {"vision_config": _PATCHES, "text_config": _TEXT},
        "SiglipImageProcessor",
        _SQUARE,
    ),
    "siglip vision": ("SiglipVisionModel", _PATCHES, "SiglipImageProcessor", _SQUARE),
    "dinov2": ("Dinov2Model", _PATCHES, "BitImageProcessor", _CROP),
    "vit": ("ViTModel", _PATCHES, "ViTImageProcessor", _SQUARE),
    "convnext": (
        "ConvNextModel",
        {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]},
        "ConvNextImageProcessor",
        {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
    ),
}


def named(group: dict[str, Made], *slow: str) -> list[Any]:
    """The names of a group, as parameters of a test; some of them are for `make test-slow`."""
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in group]


def make(made: Made, folder: Path, change: Callable[[Any], None] = lambda _: None, **saving: Any) -> Path:
    """Writes a folder with random weights, always the same.

    Args:
        made: what it holds.
        folder: where.
        change: gets the network before.
        saving: arguments of `save_pretrained`.
    """
    name, settings, processor, own = made
    with quiet_and_offline() as transformers:
        kind = getattr(transformers, name)
        torch.manual_seed(0)
        network = kind(kind.config_class.from_dict(settings))
        scatter(network, 1 if name.startswith("DFine") else 1.5)  # its refinement multiplies rounding
        change(network)
        network.save_pretrained(folder, **saving)
        getattr(transformers, processor)(**own).save_pretrained(folder)
    return folder


@torch.no_grad()
def scatter(network: Any, gain: float) -> None:
    """Random tensors with which classes and boxes of images differ, as those of a trained network do.

    Args:
        network: of transformers'; changed in place.
        gain: by which a layer's outputs vary more than its inputs, about.
    """
    for module in network.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if not tensor.is_floating_point():
                continue
            if isinstance(module, torch.nn.Embedding) or tensor.ndim == 3:  # of positions, of queries
                tensor.normal_(0, 1)
            elif tensor.ndim > 1:
                tensor.normal_(0, gain / tensor[0].numel() ** 0.5)
            elif name == "running_var" or "weight" in name:  # of a norm
                tensor.uniform_(0.7, 1.3)
            elif name in ("bias", "running_mean"):
                tensor.normal_(0, 0.3)
