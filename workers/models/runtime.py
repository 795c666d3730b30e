"""Runs networks on a CPU with ONNX Runtime, in 0.35 to 0.8 of the time of torch's own kernels."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

import onnxruntime
import torch
from torch import Tensor, nn

from schemas.exceptions import ModelError
from schemas.spec import Runtime
from workers.models.model import Model
from workers.models.onnx.network import OnnxFileNetwork

_log = logging.getLogger(__name__)

Outputs = tuple[Tensor, ...]
"""The outputs of a network for a batch, each (n, ...)."""

OPSET = 17
TOLERANCE = 1e-3
"""Largest difference between two runtimes, relative to the largest output. Measured is 1e-6; a wrong
graph differs far more."""

PROBES = ((480, 640), (512, 384))
"""Height and width of the images that an exported network is tried on."""


def prepare_module(model: Model, device: torch.device, dtype: torch.dtype, runtime: Runtime) -> nn.Module:
    """Prepares a model's module for its device, in place: moves it, or has ONNX Runtime run its network.

    ONNX Runtime computes in float32 on a CPU, with as many threads as torch; an ONNX file on any device, in
    the precision that it was made in, whatever the runtime of the others.

    Args:
        model: the model, as its source built it.
        device: the device to run it on.
        dtype: of the network's arithmetic.
        runtime: "auto" is ONNX Runtime if it gives the same outputs as torch, else torch.

    Raises:
        ModelError: ONNX Runtime is required, but cannot run this model.
    """
    if files := _onnx_files(model):
        for file in files:
            file.place(device, torch.get_num_threads())
        return model.module.eval()
    if runtime != "torch":
        reason = _unsupported(device, dtype)
        if reason is None:
            try:
                return _with_onnx_network(model)
            except Exception as error:  # the exporter and the module may raise anything
                reason = f"{error}"
                if model.network is not None:
                    _log.warning("torch runs the %s, not ONNX Runtime: %s", type(model).__name__, reason)
        if runtime != "auto":
            raise ModelError(
                f"compute.runtime is {runtime}, which cannot run this model: {reason}. "
                "Allowed here: auto, torch"
            )
    layout = torch.channels_last if model.channels_last else torch.preserve_format
    return model.module.to(device).to(memory_format=layout).eval()


def assert_runtime(model: Model, runtime: Runtime) -> None:
    """Refuses a runtime that a job asks for and that cannot compute a model; what must be tried is not.

    Raises:
        ModelError: it is torch, and the model is an ONNX file.
    """
    if runtime == "torch" and (files := _onnx_files(model)):
        raise ModelError(
            f"compute.runtime is torch, which cannot run {files[0].name}: ONNX Runtime computes an ONNX "
            "file. "
            "Allowed here: auto, onnxruntime"
        )


def _onnx_files(model: Model) -> list[OnnxFileNetwork]:
    """The parts of a model that are ONNX files."""
    return [part for part in model.module.modules() if isinstance(part, OnnxFileNetwork)]


def _unsupported(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why ONNX Runtime is not used with a device and dtype; None if it can be."""
    if device.type != "cpu" or dtype != torch.float32:
        return f"it is for float32 on a CPU, found {dtype} on {device.type}".replace("torch.", "")
    return None


def _with_onnx_network(model: Model) -> nn.Module:
    """The module with its network replaced by ONNX Runtime's, if both give the same outputs.

    Raises:
        ValueError: the model names no network, its inputs have no fixed shape, or the outputs differ.
    """
    if model.network is None:
        raise ValueError("it names no part that is a network alone")
    module = model.module.eval()
    network = module.get_submodule(model.network)
    inputs, expected = _record_passes(model, network)
    onnx_network = OnnxNetwork(export_onnx(network, inputs[:1]), torch.get_num_threads())
    assert_same(expected, onnx_network(inputs), unordered=model.unordered)
    if not model.network:
        return onnx_network
    module.set_submodule(model.network, onnx_network)
    return module


@torch.inference_mode()
def _record_passes(model: Model, network: nn.Module) -> tuple[Tensor, Outputs]:
    """The inputs of a model's network for some images of noise, as one batch, and its outputs."""
    passes: list[tuple[Tensor, Outputs]] = []
    hook = network.register_forward_hook(
        lambda _, inputs, output: passes.append((inputs[0], outputs_of(output)))
    )
    try:
        for image in noise_inputs(model):
            model.module(image[None] if model.gives else [image])
    finally:
        hook.remove()
    inputs, outputs = zip(*passes, strict=True)
    return torch.cat(inputs), tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))


def noise_inputs(model: Model) -> Iterator[Tensor]:
    """The inputs of a model for some images of noise, each float (3, h, w), the same each time."""
    generator = torch.Generator()
    for height, width in PROBES:
        noise = torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=generator)
        yield model.transform(noise.permute(2, 0, 1))


def outputs_of(output: Tensor | Outputs) -> Outputs:
    """The outputs of a network that returned one tensor, or several."""
    return (output,) if isinstance(output, Tensor) else tuple(output)


class OnnxNetwork(nn.Module):
    """A network computed by ONNX Runtime; takes and returns torch tensors on the CPU.

    Args:
        data: the ONNX model: one input, "batch", float32 (n, 3, h, w) with n free.
        threads: the number of threads to compute with.
    """

    def __init__(self, data: bytes, threads: int) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def forward(self, batch: Tensor) -> Tensor | Outputs:
        """The network's raw output: a tensor, or a tuple if there are several."""
        arrays = self._session.run(None, {"batch": batch.contiguous().numpy()})
        outputs = tuple(torch.from_numpy(array) for array in arrays)
        return outputs[0] if len(outputs) == 1 else outputs


def export_onnx(network: nn.Module, example: Tensor) -> bytes:
    """Exports a network as an ONNX model, with a free batch size.

    Uses torch's older exporter, which traces: the newer one needs onnxscript and takes ten times as long.
    """
    with TemporaryDirectory() as folder, _quiet(), _plain_attention(), torch.inference_mode():
        file = Path(folder) / "network.onnx"
        torch.onnx.export(
            network,
            (example,),
            str(file),
            input_names=["batch"],
            dynamic_axes={"batch": {0: "n"}},
            opset_version=OPSET,
            dynamo=False,
        )
        return file.read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter, which warns of its deprecation and prints constants and unsupported parts."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Makes torch compute attention in single steps: its fused operator does not exist in ONNX."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def assert_same(expected: Outputs, actual: Tensor | Outputs, *, unordered: bool = False) -> None:
    """Compares the outputs of two modules that should be one network.

    Args:
        expected: of the one.
        actual: of the other.
        unordered: see `Model`; then each row of the one must be like some row of the other.

    Raises:
        ValueError: they differ by more than the tolerance.
    """
    found = outputs_of(actual)
    if unordered and [one.shape for one in expected] == [other.shape for other in found]:
        assert_same(found, _in_order(expected, found))
        found = _in_order(found, expected)
    for one, other in zip(expected, found, strict=True):
        if one.shape != other.shape:
            raise ValueError(f"it answers with {tuple(other.shape)}, expected {tuple(one.shape)}")
        difference, largest = (one - other).abs().max().item(), one.abs().max().item()
        if not difference <= TOLERANCE * max(largest, 1):  # not ">": NaN must fail
            raise ValueError(f"its answers are off by {difference:.3g}, of up to {largest:.3g}")


def _in_order(outputs: Outputs, expected: Outputs) -> Outputs:
    """For each row of the expected outputs, (n, rows, ...), the row of others that is most like it."""
    rows, wanted = (torch.cat([part.flatten(2) for part in parts], dim=2) for parts in (outputs, expected))
    nearest = torch.cdist(wanted, rows, p=torch.inf).argmin(dim=2)
    return tuple(torch.stack([part[i, chosen] for i, chosen in enumerate(nearest)]) for part in outputs)
