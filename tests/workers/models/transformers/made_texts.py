"""Hugging Face folders of small networks for images and texts, with random weights and own tokenizers."""

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.workers.models.transformers.made import Made, make
from workers.models.transformers.network import quiet_and_offline

LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = (
    "a",
    "photo",
    "of",
    "this",
    "is",
    "cat",
    "dog",
    "red",
    "car",
    "tree",
    "rocket",
    "flower",
    "at",
    "night",
)
CORPUS = [f"{one} {other} {word}." for one in WORDS for other in WORDS for word in WORDS]

_LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_PATCHES = {**_LAYERS, "image_size": 64, "patch_size": 16}
_SQUARE = {"size": {"height": 64, "width": 64}}
_CROP = {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}
_START, _END = "<|startoftext|>", "<|endoftext|>"
_CLIP_VOCABULARY = [
    *(f"{letter}{end}" for letter in (*LETTERS, *"0123456789.,'-") for end in ("", "</w>")),
    *("ca", "cat</w>", "do", "dog</w>", "re", "red</w>", "car</w>", "ph", "pho", "of</w>"),
    *(_START, _END),
]
_CLIP_MERGES = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>"), ("r", "e"), ("re", "d</w>")]
_CLIP_MERGES += [("ca", "r</w>"), ("p", "h"), ("ph", "o"), ("o", "f</w>")]
_CLIP_TEXT = {
    **_LAYERS,
    "vocab_size": len(_CLIP_VOCABULARY),
    "max_position_embeddings": 77,
    "bos_token_id": len(_CLIP_VOCABULARY) - 2,
    "eos_token_id": len(_CLIP_VOCABULARY) - 1,
    "pad_token_id": len(_CLIP_VOCABULARY) - 1,
}
_SIGLIP_TEXT = {**_LAYERS, "vocab_size": 200, "max_position_embeddings": 64, "projection_size": 32}
_BERT_WORDS = ["[PAD]", *(f"[unused{i}]" for i in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_BERT_WORDS += [f"[filled{i}]" for i in range(1012 - len(_BERT_WORDS))] + ["."]
_BERT_WORDS += [f"[more{i}]" for i in range(1029 - len(_BERT_WORDS))] + ["?", *WORDS]
"""Grounding DINO knows [CLS], [SEP], the dot and the question mark by the numbers that BERT has for them."""

_SWIN = {
    "model_type": "swin",
    "image_size": 64,
    "embed_dim": 16,
    "depths": [1, 1, 1, 1],
    "num_heads": [2, 2, 4, 4],
    "window_size": 4,
    "out_features": ["stage2", "stage3", "stage4"],
}
_DINO = {
    "d_model": 32,
    "num_queries": 20,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "max_text_len": 64,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "backbone_config": _SWIN,
    "text_config": {"model_type": "bert", **_LAYERS, "vocab_size": 1100},
}

COMPARED: dict[str, Made] = {
    "clip": (
        "CLIPModel",
        {"vision_config": _PATCHES, "text_config": _CLIP_TEXT, "projection_dim": 16},
        "CLIPImageProcessor",
        _CROP,
    ),
    "metaclip 2": (
        "MetaClip2Model",
        {"vision_config": _PATCHES, "text_config": _CLIP_TEXT, "projection_dim": 16},
        "CLIPImageProcessor",
        _CROP,
    ),
    "siglip": (
        "SiglipModel",
        {"vision_config": _PATCHES, "text_config": _SIGLIP_TEXT},
        "SiglipImageProcessor",
        _SQUARE,
    ),
    "siglip2": (
        "SiglipModel",
        {"vision_config": _PATCHES, "text_config": _SIGLIP_TEXT},
        "SiglipImageProcessor",
        _SQUARE,
    ),
}

FINDERS: dict[str, Made] = {
    "owlv2": (
        "Owlv2ForObjectDetection",
        {
            "vision_config": _PATCHES,
            "text_config": {**_CLIP_TEXT, "max_position_embeddings": 16},
            "projection_dim": 32,
        },
        "Owlv2ImageProcessor",
        _SQUARE,
    ),
    "owl-vit": (
        "OwlViTForObjectDetection",
        {
            "vision_config": _PATCHES,
            "text_config": {**_CLIP_TEXT, "max_position_embeddings": 16},
            "projection_dim": 32,
        },
        "OwlViTImageProcessor",
        {**_SQUARE, "crop_size": {"height": 64, "width": 64}},
    ),
    "grounding dino": (
        "GroundingDinoForObjectDetection",
        _DINO,
        "GroundingDinoImageProcessor",
        {"size": {"shortest_edge": 64, "longest_edge": 110}},
    ),
}

MM_DINO: Made = ("MMGroundingDinoForObjectDetection", *FINDERS["grounding dino"][1:])
"""The same under another name; random weights make its boxes less than a pixel."""


Folders = Callable[[str], Path]
"""Folders of models by name."""


def made_once(root: Path, make: Callable[[str, Path], Path]) -> Folders:
    """Folders below a root, each made when it is first asked for."""
    made = dict[str, Path]()

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = make(name, root / name.replace(" ", "-"))
        return made[name]

    return folder


def clip_tokenizer(transformers: Any) -> Any:
    """CLIP's: pieces of words in lower case."""
    numbers = {piece: i for i, piece in enumerate(_CLIP_VOCABULARY)}
    return transformers.CLIPTokenizer(vocab=numbers, merges=_CLIP_MERGES, model_max_length=77)


def siglip_tokenizer(transformers: Any) -> Any:
    """SigLIP's: SentencePiece, without punctuation."""
    import tempfile

    import sentencepiece

    model = io.BytesIO()
    with contextlib.redirect_stderr(io.StringIO()):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS),
            model_writer=model,
            vocab_size=60,
            hard_vocab_limit=False,
            minloglevel=2,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spiece.model"
        file.write_bytes(model.getvalue())
        tokenizer = transformers.SiglipTokenizer(str(file))
        tokenizer.save_pretrained(folder)
        return transformers.SiglipTokenizer.from_pretrained(folder)


def siglip2_tokenizer(transformers: Any) -> Any:
    """SigLIP 2's: that of Gemma, in lower case."""
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS, ".", "ca", "cat"]
    numbers = {piece: i for i, piece in enumerate([*pieces, *(f"<0x{i:02X}>" for i in range(100))])}
    return transformers.Siglip2Tokenizer(vocab=numbers, merges=[("c", "a"), ("ca", "t")])


def bert_tokenizer(transformers: Any) -> Any:
    """BERT's, of whole words."""
    return transformers.BertTokenizer(vocab={word: i for i, word in enumerate(_BERT_WORDS)})


TOKENIZERS: dict[str, Callable[[Any], Any]] = {
    "clip": clip_tokenizer,
    "metaclip 2": clip_tokenizer,
    "mm grounding dino": bert_tokenizer,
    "siglip": siglip_tokenizer,
    "siglip2": siglip2_tokenizer,
    "owlv2": clip_tokenizer,
    "owl-vit": clip_tokenizer,
    "grounding dino": bert_tokenizer,
}


def make_for_texts(name: str, folder: Path, **settings: Any) -> Path:
    """Writes a folder of these with its tokenizer, with other settings if asked."""
    kind, own, processor, pixels = (COMPARED | FINDERS | {"mm grounding dino": MM_DINO})[name]
    make((kind, own | settings, processor, pixels), folder)
    with quiet_and_offline() as transformers:
        TOKENIZERS[name](transformers).save_pretrained(folder)
    return folder
