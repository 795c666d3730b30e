"""Networks on a CPU by ONNX Runtime, which needs 0.35 to 0.8 of the time of torch's own kernels."""

import io
import sys
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
from workers.models.model import ClassifierModel, DetectorModel

Answers = tuple[Tensor, ...]
"""What a network answers a batch with, each (n, ...)."""

OPSET = 17
TOLERANCE = 1e-3
"""Of an answer's largest value: what two runtimes may differ by. 1e-6 is seen; a wrong graph is far off."""

PROBES = ((480, 640), (512, 384))
"""Height and width of the pictures that an exported network is tried on."""


def placed(
    model: ClassifierModel | DetectorModel, device: torch.device, dtype: torch.dtype, runtime: Runtime
) -> nn.Module:
    """A model's module, ready to run on its device: in the model's layout, or with its network exchanged.

    ONNX Runtime computes in float32 on a CPU, with as many threads as torch. The model's module is changed.

    Args:
        model: as its source made it.
        device: where it is to run.
        dtype: that its network is to compute in.
        runtime: "auto" is ONNX Runtime wherever it gives the model's answers, else torch.

    Raises:
        ModelError: ONNX Runtime is asked for, and cannot run this model.
    """
    if runtime != "torch":
        reason = _other_than(device, dtype)
        if reason is None:
            try:
                return _exchanged(model)
            except Exception as error:  # the exporter and the module may raise anything
                reason = f"{error}"
                if model.network is not None:
                    print(
                        f"torch runs the {type(model).__name__}, not ONNX Runtime: {reason}", file=sys.stderr
                    )
        if runtime != "auto":
            raise ModelError(
                f"compute.runtime is {runtime}, which cannot run this model: {reason}. "
                "Allowed here: auto, torch"
            )
    layout = torch.channels_last if model.channels_last else torch.preserve_format
    return model.module.to(device).to(memory_format=layout).eval()


def _other_than(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why a device or precision is torch's alone; None where it is not."""
    if device.type != "cpu" or dtype != torch.float32:
        return f"it is for float32 on a CPU, found {dtype} on {device.type}".replace("torch.", "")
    return None


def _exchanged(model: ClassifierModel | DetectorModel) -> nn.Module:
    """The module with ONNX Runtime in the place of its network.

    Raises:
        ValueError: the model names no network, its inputs have no fixed shape, or ONNX Runtime answers
            otherwise than torch.
    """
    if model.network is None:
        raise ValueError("it names no part that is a network alone")
    module = model.module.eval()
    network = module.get_submodule(model.network)
    inputs, expected = _passes(model, network)
    exchanged = OnnxNetwork(exported(network, inputs[:1]), torch.get_num_threads())
    _assert_same(expected, exchanged(inputs))
    if not model.network:
        return exchanged
    module.set_submodule(model.network, exchanged)
    return module


@torch.inference_mode()
def _passes(model: ClassifierModel | DetectorModel, network: nn.Module) -> tuple[Tensor, Answers]:
    """What reaches a model's network for some pictures of noise, as one batch, and what it answers."""
    seen: list[tuple[Tensor, Answers]] = []
    hook = network.register_forward_hook(lambda _, given, found: seen.append((given[0], _answers(found))))
    chance = torch.Generator()
    try:
        for height, width in PROBES:
            noise = torch.randint(256, (height, width, 3), dtype=torch.uint8, generator=chance)
            image = model.transform(noise.permute(2, 0, 1))
            model.module([image] if isinstance(model, DetectorModel) else image[None])
    finally:
        hook.remove()
    given, found = zip(*seen, strict=True)
    return torch.cat(given), tuple(torch.cat(each) for each in zip(*found, strict=True))


def _answers(found: Tensor | Answers) -> Answers:
    return (found,) if isinstance(found, Tensor) else tuple(found)


class OnnxNetwork(nn.Module):
    """A network that ONNX Runtime computes; takes and gives torch's tensors on the CPU.

    Args:
        data: the ONNX model: one input, "batch", float32 (n, 3, h, w) with n free.
        threads: that it computes with.
    """

    def __init__(self, data: bytes, threads: int) -> None:
        super().__init__()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def forward(self, batch: Tensor) -> Tensor | Answers:
        """The network's raw answers: a tensor, or a tuple where there are several."""
        answers = self._session.run(None, {"batch": batch.contiguous().numpy()})
        found = tuple(torch.from_numpy(answer) for answer in answers)
        return found[0] if len(found) == 1 else found


def exported(network: nn.Module, example: Tensor) -> bytes:
    """A network as an ONNX model for batches of any size.

    By torch's exporter of traces: the newer one wants onnxscript and takes ten times as long.
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
    """Without what the exporter says: that it is deprecated, each constant, all of what it cannot do."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Attention in its single steps: torch's own operator for all of it has no counterpart in ONNX."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _assert_same(expected: Answers, found: Tensor | Answers) -> None:
    """Compares the answers of two runtimes.

    Raises:
        ValueError: they are not the same within the tolerance.
    """
    for one, other in zip(expected, _answers(found), strict=True):
        if one.shape != other.shape:
            raise ValueError(f"torch answers with {tuple(one.shape)}, ONNX Runtime with {tuple(other.shape)}")
        apart, most = (one - other).abs().max().item(), one.abs().max().item()
        if not apart <= TOLERANCE * max(most, 1):
            raise ValueError(f"its answers differ from torch's by {apart:.3g}, of up to {most:.3g}")
