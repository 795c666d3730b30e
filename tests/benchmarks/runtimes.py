"""Ways to run a network on one CPU core; all take and give torch's tensors.

Each is float32 but for `openvino_bf16`, and for batches of any size but for `compiled`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tests.benchmarks.photos import BUILD
from workers.models.runtime import OnnxNetwork, export_onnx

Network = Callable[[Tensor], Sequence[Tensor]]
"""A batch (n, 3, h, w) to its raw answers."""


class Answers(nn.Module):
    """A network that always answers with a tuple, so that all are called alike."""

    def __init__(self, network: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.network = network
        self.module = getattr(network, "__self__", None)  # a method's: its weights are found through it

    def forward(self, batch: Tensor) -> tuple[Tensor, ...]:
        found = self.network(batch)
        return (found,) if isinstance(found, Tensor) else tuple(found)


def eager(module: nn.Module, _: Tensor) -> Network:
    """torch as it is."""
    return module


def channels_last(module: nn.Module, _: Tensor) -> Network:
    """torch with the channels of a pixel side by side."""
    module = module.to(memory_format=torch.channels_last)
    return lambda batch: module(batch.contiguous(memory_format=torch.channels_last))


def compiled(module: nn.Module, example: Tensor) -> Network:
    """torch.compile with weights frozen; needs a C++ compiler where it runs."""
    import torch._inductor.config as inductor

    inductor.freezing = True
    inductor.cpp.threads = 1
    inductor.compile_threads = 1
    network = torch.compile(module.to(memory_format=torch.channels_last), dynamic=False)

    def run(batch: Tensor) -> Sequence[Tensor]:
        answers: Sequence[Tensor] = network(batch.contiguous(memory_format=torch.channels_last))
        return answers

    run(example)
    return run


def onnx(module: nn.Module, example: Tensor) -> Network:
    """ONNX Runtime on its own CPU kernels, as raylabel runs it."""
    return Answers(OnnxNetwork(export_onnx(module, example), threads=1))


def openvino(module: nn.Module, example: Tensor, precision: str = "f32") -> Network:
    """OpenVINO; float32, where by itself it takes bfloat16 on processors that have it."""
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": 1,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # else every process computes on the same core
        "CACHE_DIR": str(BUILD / "openvino"),
    }
    with torch.inference_mode():
        converted = openvino.convert_model(module, example_input=example, input=[(-1, *example.shape[1:])])
    network = core.compile_model(converted, "CPU", settings)
    request = network.create_infer_request()

    def run(batch: Tensor) -> Sequence[Tensor]:
        found = request.infer({0: batch.numpy()}, share_inputs=True)
        return [torch.from_numpy(found[output].copy()) for output in network.outputs]

    return run


def openvino_bf16(module: nn.Module, example: Tensor) -> Network:
    """OpenVINO as it is by itself on this processor."""
    return openvino(module, example, "bf16")


RUNTIMES: dict[str, Callable[[nn.Module, Tensor], Network]] = {
    "eager": eager,
    "channels_last": channels_last,
    "compiled": compiled,
    "onnx": onnx,
    "openvino": openvino,
    "openvino_bf16": openvino_bf16,
}
