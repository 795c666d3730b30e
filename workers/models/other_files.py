"""Files of models that cannot be named as `model`: what they are, and what to do with them."""

from pathlib import Path

from schemas.exceptions import ModelError
from schemas.tasks import ModelSpec
from workers.models.checkpoints import export_of_yolo, is_program, parse_checkpoint

_Said = tuple[str, str]
"""What a file is, and what to do."""

_EXPORT = "export it to ONNX where it was trained, and name that file"

_WEIGHTS: _Said = (
    "a file of weights, which is no network",
    "name the network, and give the file as `weights: {file}`",
)
_PROGRAM: _Said = ("a program of PyTorch's, which would be executed", _EXPORT)
_OBJECTS: _Said = (
    "a file of Python's objects, which only executing it can load",
    f"{_EXPORT}; or build the network in a `module:factory` of yours",
)

_KINDS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        (".pt",),
        "a file of PyTorch's objects, which only executing it can load",
        "export it to ONNX where it was trained, one of Ultralytics with `yolo export model={file} "
        "format=onnx`, and name {stem}.onnx; if it holds tensors by name, name the network and give it as "
        "`weights: {file}`",
    ),
    ((".pth", ".pth.tar", ".bin", ".ckpt", ".safetensors"), *_WEIGHTS),
    ((".torchscript", ".ptl", ".pkl"), *_PROGRAM),
    (
        (".engine", ".plan", ".trt"),
        "an engine of TensorRT's, which runs on one kind of GPU",
        "name the ONNX file that it was made from",
    ),
    (
        (".tflite",),
        "a model of TensorFlow Lite's",
        "make an ONNX file of it with `python -m tf2onnx.convert --tflite {file} --output {stem}.onnx`",
    ),
    (
        (".pb", ".h5", ".keras"),
        "a model of TensorFlow's",
        "make an ONNX file of it with tf2onnx, and name that file",
    ),
    ((".mlmodel", ".mlpackage"), "a model of Core ML's", _EXPORT),
    ((".xml",), "a model of OpenVINO's", "name the ONNX file that it was made from"),
    ((".zip",), "an archive", "unpack it, and name what is in it"),
    (
        (".ncnn", ".param", ".pdmodel", ".gguf", ".rknn", ".hef", ".ort"),
        "a model of another runtime's",
        _EXPORT,
    ),
)
"""How their names end, what they are, what to do."""

POSSIBLE = "a name that `raylabel models` lists, an ONNX file, a folder with config.json, or module:factory"
"""What `model` may be."""


def what_to_do(spec: ModelSpec) -> str | None:
    """The message for a `model` that nothing takes and that names a file or a folder; None for others."""
    file, task = spec.name, spec.task.name
    if Path(spec.model).is_dir():
        return f"there is no {task} {file!r}, but a folder; a folder is named with a slash: ./{file}/"
    for ends, *said in _KINDS:
        if end := next((end for end in ends if file.lower().endswith(end)), None):
            kind, advice = (end in _OF_TORCH and _by_content(spec.model)) or said
            stem = file[: -len(end)] or "model"
            return f"{file} is no {task} but {kind}: {advice.format(file=file, stem=stem)}"
    return None


_OF_TORCH = (".pt", ".pth", ".pth.tar", ".bin", ".ckpt")
"""How files end that `torch.save` writes, whatever is in them."""


def _by_content(path: str) -> _Said | None:
    """What a file of torch's on this machine is, and what to do with it; nothing in it is executed."""
    try:
        data = Path(path).read_bytes()
    except OSError:
        return None
    if export := export_of_yolo(data, path):
        return "a checkpoint with its training code's objects", export.replace("{", "{{").replace("}", "}}")
    if is_program(data):
        return _PROGRAM
    try:
        parse_checkpoint(data, path)
    except ModelError:
        return _OBJECTS
    return _WEIGHTS
