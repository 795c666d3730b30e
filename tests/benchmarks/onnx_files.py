"""What a detector's ONNX file costs here against ONNX Runtime alone, on one thread.

    python -m tests.benchmarks.onnx_files [FILE] [--images 40]

FILE is by itself NudeNet's 320n.onnx, from `pip install 'raylabel[makers]'`. Both are given the same inputs,
in turn, image by image; the best third of each counts, as others use the cores. Preprocessing is timed apart.
"""

import argparse
import importlib.util
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from schemas.tasks import DetectorSpec
from tests.workers.models.pictures import CPU, photos
from workers.models.onnx.detector import OnnxDetector
from workers.models.registry import load
from workers.models.runtime import prepare_module


def nudenets_file() -> str:
    """The file in the package `nudenet`."""
    package = importlib.util.find_spec("nudenet")
    if package is None or package.origin is None:
        raise SystemExit("give a FILE, or install NudeNet: pip install 'raylabel[makers]'")
    return str(Path(package.origin).parent / "320n.onnx")


def seconds_of(run: Callable[[], object]) -> float:
    """Processor seconds of this thread that a call takes."""
    began = time.thread_time()
    run()
    return time.thread_time() - began


def best(times: list[float]) -> float:
    """The mean of the best third, milliseconds."""
    return float(np.mean(sorted(times)[: max(1, len(times) // 3)])) * 1000


def measure(file: str, rounds: int) -> None:
    """Prints the times of a file, and their ratio."""
    torch.set_num_threads(1)
    loaded = load(DetectorSpec(model=file, score_threshold=0.25))
    module = prepare_module(loaded.model, CPU, torch.float32, "auto")
    assert isinstance(module, OnnxDetector)
    preprocess = module.preprocess
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    images = [torch.from_numpy(photo.pixels).permute(2, 0, 1) for photo in photos().values()]
    times: dict[str, list[float]] = {"alone": [], "ours": [], "preprocessing": []}
    with torch.inference_mode():
        for number in range(rounds):
            image = images[number % len(images)]
            times["preprocessing"].append(seconds_of(partial(preprocess, image)))
            feeds = {name: preprocess(image)[None].numpy()}
            times["alone"].append(seconds_of(partial(session.run, None, feeds)))
            times["ours"].append(seconds_of(partial(module, [image])))
    alone, whole, before = best(times["alone"]), best(times["ours"]), best(times["preprocessing"])
    print(f"{Path(file).name}: one thread, CPU-ms an image, best third of {rounds}")
    print(f"  ONNX Runtime alone            {alone:7.2f}")
    print(f"  ours without preprocessing    {whole - before:7.2f}")
    print(f"  preprocessing                 {before:7.2f}")
    print(f"  speed of ours against alone   {alone / (whole - before):7.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", nargs="?")
    parser.add_argument("--images", type=int, default=210)
    arguments = parser.parse_args()
    measure(arguments.file or nudenets_file(), arguments.images)
