"""Computes an ONNX file with ONNX Runtime, on a CPU or a GPU."""

import importlib.util
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from schemas.exceptions import ModelError
from schemas.tasks import MAX_SIDE
from workers.models.onnx.file import OnnxFile, Port, shape_text
from workers.models.preprocess import Size
from workers.printable import short_line

_log = logging.getLogger(__name__)

CPU = torch.device("cpu")

DTYPES = ("float32", "float16", "uint8")
"""Types of values that an image may have as input."""

_TOO_NEW = re.compile(r"[Oo]pset (\d+) is under development.*?till opset (\d+)", re.DOTALL)
_IR_TOO_NEW = re.compile(r"IR version: (\d+), max supported IR version: (\d+)")
_NO_OPERATOR = re.compile(r"(?:Could not find an implementation for|Fatal error:) ?(\S+)")


class OnnxFileNetwork(nn.Module):
    """The network of an ONNX file: takes images as a batch, returns its outputs.

    A file that is made for one image, or for another number of them, is given as many at a time.

    Args:
        file: the file.

    Attributes:
        image: its input for images.
        channels_last: whether that is (n, height, width, 3), not (n, 3, height, width).

    Raises:
        ModelError: ONNX Runtime cannot compute it, or no input of it is an image's.
    """

    def __init__(self, file: OnnxFile) -> None:
        super().__init__()
        self.name, self.sha256 = file.name, file.sha256
        self._data: bytes | None = file.data
        self._place = (CPU, torch.get_num_threads())
        self._session = session_of(file.data, file.name, *self._place, file.sha256)
        self.image = _image_port(file)
        self.channels_last = self.image.shape[1] != 3 and self.image.shape[3] == 3
        self.others = tuple(port for port in file.inputs if port is not self.image)
        self.outputs = tuple(output.name for output in file.outputs)

    @property
    def static_size(self) -> tuple[int | None, int | None]:
        """Height and width that the file is made for; None where they are free."""
        _, *shape = self.image.shape
        return (shape[0], shape[1]) if self.channels_last else (shape[1], shape[2])

    @property
    def static_batch(self) -> int | None:
        """The number of images that the file is made for; None where it is free."""
        return self.image.shape[0]

    def place(self, device: torch.device, threads: int) -> None:
        """Moves it to a device; on a CPU it computes with so many threads. Its bytes are then given up."""
        if (device, threads) != self._place:
            if self._data is None:
                raise RuntimeError(f"{self.name} has been placed on {self._place[0]} already")
            self._session = session_of(self._data, self.name, device, threads, self.sha256)
            self._place = (device, threads)
        self._data = None

    def forward(self, batch: Tensor, others: Mapping[str, Tensor] | None = None) -> tuple[Tensor, ...]:
        """The outputs for a batch, each (n, ...), on the CPU, numbers as float32 or int64.

        Args:
            batch: float32 (n, 3, height, width).
            others: what the further inputs get, by name, each (n, ...).

        Raises:
            ValueError: an output is not one for each image.
        """
        size = self.static_batch or len(batch)
        parts = [
            self._run(
                batch[start : start + size],
                {k: v[start : start + size] for k, v in (others or {}).items()},
                size,
            )
            for start in range(0, len(batch), size)
        ]
        return parts[0] if len(parts) == 1 else tuple(torch.cat(part) for part in zip(*parts, strict=True))

    def _run(self, batch: Tensor, others: Mapping[str, Tensor], size: int) -> tuple[Tensor, ...]:
        """The outputs for up to as many images as the file takes."""
        count = len(batch)
        images = batch.permute(0, 2, 3, 1) if self.channels_last else batch
        feeds = {self.image.name: array_of(images, self.image.dtype, size)}
        feeds |= {port.name: array_of(others[port.name], port.dtype, size) for port in self.others}
        answers = self._session.run(None, feeds)
        outputs = []
        for name, answer in zip(self.outputs, answers, strict=True):
            if not isinstance(answer, np.ndarray) or answer.ndim == 0 or len(answer) != size:
                found = shape_text(answer.shape) if isinstance(answer, np.ndarray) else type(answer).__name__
                raise ValueError(f"its output {short_line(name, 60)!r} is {found} for {size} images")
            outputs.append(torch.from_numpy(plain(answer[:count])))
        return tuple(outputs)

    def answers(self, size: Size, seed: int = 0) -> dict[str, Tensor]:
        """Its outputs by name for an image of noise.

        Args:
            size: height and width.
            seed: of the noise.

        Raises:
            ModelError: it fails on it.
        """
        noise = torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(seed))
        if self.image.dtype == "uint8":
            noise = noise * 255
        others = {port.name: torch.tensor([[size[1], size[0]]]) for port in self.others}
        try:
            outputs = self(noise, others)
        except Exception as error:  # onnxruntime's own kinds
            raise ModelError(
                f"{self.name} fails on an image of {size[0]}x{size[1]} (height x width): "
                f"{short_line(str(error), 300)}"
            ) from None
        return dict(zip(self.outputs, outputs, strict=True))


def _image_port(file: OnnxFile) -> Port:
    """The input that takes images.

    Raises:
        ModelError: none does, or several; its type or its size is none of an image's.
    """
    listed = ", ".join(map(str, file.inputs))
    ports = [port for port in file.inputs if len(port.shape) == 4 and 3 in _channels(port)]
    if len(ports) != 1:
        raise ModelError(
            f"{file.name}: which input takes images? found {listed or 'no input'}; allowed: one of "
            "(n, 3, height, width) or (n, height, width, 3)"
        )
    if ports[0].dtype not in DTYPES:
        raise ModelError(f"{file.name}: found the input {ports[0]}; allowed for images: {', '.join(DTYPES)}")
    if max(length or 0 for length in ports[0].shape[1:]) > MAX_SIDE:
        raise ModelError(
            f"{file.name}: found the input {ports[0]}; allowed for images: sides of 1 to {MAX_SIDE:,} pixels"
        )
    return ports[0]


def _channels(port: Port) -> tuple[int | None, ...]:
    """What the number of channels of an input may be: of one that is free, 3."""
    return tuple(port.shape[axis] or 3 for axis in (1, 3))


def array_of(tensor: Tensor, dtype: str, size: int) -> np.ndarray[Any, Any]:
    """An input's value, filled up to a number of images with those of the first."""
    if len(tensor) < size:
        tensor = torch.cat([tensor, tensor[:1].expand(size - len(tensor), *tensor.shape[1:])])
    array = tensor.cpu().contiguous().numpy()
    if dtype == "uint8":
        array = array.round().clip(0, 255)
    return array.astype(dtype, copy=False)


def plain(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An output as float32 or int64."""
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int64, copy=False)


def session_of(
    data: bytes, name: str, device: torch.device, threads: int, sha256: str
) -> onnxruntime.InferenceSession:
    """ONNX Runtime's session of a file.

    Raises:
        ModelError: it cannot compute the file.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors: a file of a newer kind warns of each of its operators
    try:
        return onnxruntime.InferenceSession(data, options, providers=providers(device, sha256))
    except Exception as error:  # onnxruntime has a kind for each of its codes
        raise ModelError(f"{name} cannot be computed: {_why(str(error))}") from None


def _why(message: str) -> str:
    """ONNX Runtime's message in one sentence."""
    version = onnxruntime.__version__
    if found := _TOO_NEW.search(message):
        return (
            f"it is of opset {found[1]}, and ONNX Runtime {version} knows up to {found[2]}; export it with "
            f"opset {found[2]} or less, or install a newer onnxruntime"
        )
    if found := _IR_TOO_NEW.search(message):
        return (
            f"it is of ONNX's IR version {found[1]}, and ONNX Runtime {version} knows up to {found[2]}; "
            "export it with an older onnx, or install a newer onnxruntime"
        )
    if found := _NO_OPERATOR.search(message):
        operator = short_line(found[1], 60)
        return f"ONNX Runtime {version} lacks its operator {operator}; export it with another opset"
    return f"ONNX Runtime {version} says: {short_line(message, 300)}"


def providers(device: torch.device, sha256: str) -> list[Any]:
    """What ONNX Runtime computes a file with, best first; on a GPU with the package `onnxruntime-gpu`.

    TensorRT is taken where its Python package is installed, too. Its engines take minutes to build, and are
    kept by file and GPU in the folder `RAYLABEL_TENSORRT`, or in ~/.cache/raylabel/tensorrt.
    """
    available = onnxruntime.get_available_providers()
    chosen: list[Any] = []
    if device.type == "cuda":
        index = device.index or 0
        if "TensorrtExecutionProvider" in available and importlib.util.find_spec("tensorrt"):
            cache = _engines() / f"{sha256[:16]}-{torch.cuda.get_device_name(index).replace(' ', '_')}"
            cache.mkdir(parents=True, exist_ok=True)
            engine = {
                "trt_engine_cache_enable": True,
                "trt_engine_cache_path": str(cache),
                "device_id": index,
            }
            chosen.append(("TensorrtExecutionProvider", engine))
        if "CUDAExecutionProvider" in available:
            chosen.append(("CUDAExecutionProvider", {"device_id": index}))
        else:
            _log.warning("an ONNX file is computed on the CPU: onnxruntime-gpu is not installed")
    return [*chosen, "CPUExecutionProvider"]


def _engines() -> Path:
    given = os.environ.get("RAYLABEL_TENSORRT")
    return Path(given) if given else Path.home() / ".cache" / "raylabel" / "tensorrt"
