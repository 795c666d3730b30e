import argparse
import hashlib
import io
import pickle
import random
import re
import shlex
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from schemas.exceptions import ModelError
from workers.models.checkpoints import pickled_names
from workers.models.weights import WeightsFile, assert_finite, load_state, read_weights


@pytest.fixture
def state() -> dict[str, Tensor]:
    return {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


def of_file(state: dict[str, Tensor]) -> WeightsFile:
    return WeightsFile("f.pth", "0" * 64, state)


def test_pth_and_safetensors_give_the_same_tensors(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "a.pth")
    torch.save({"model": state, "epoch": 3}, tmp_path / "b.pt")
    save_file(state, tmp_path / "c.safetensors")
    for name in ("a.pth", "b.pt", "c.safetensors"):
        found = read_weights(str(tmp_path / name))
        assert found.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert found.state.keys() == state.keys()
        assert all(torch.equal(found.state[key], state[key]) for key in state)


def test_weights_are_read_from_any_fsspec_url(state: dict[str, Tensor]) -> None:
    with fsspec.open("memory://models/a.pth", "wb") as file:
        torch.save(state, file)
    assert torch.equal(read_weights("memory://models/a.pth").state["bias"], state["bias"])


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("trap-was-sprung"),))


def test_nothing_in_a_weights_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("trap.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    torch.save({"weight": Trap()}, "trap2.pth")
    for name in ("trap.pth", "trap2.pth"):
        with pytest.raises(ModelError, match="cannot be loaded"):
            read_weights(name)
    assert not Path("trap-was-sprung").exists()


def test_a_wrong_sha256_is_refused_with_both_digests_before_the_file_is_interpreted(tmp_path: Path) -> None:
    path = tmp_path / "not-even-weights.pth"
    path.write_bytes(b"anything")
    with pytest.raises(ModelError, match="another sha256") as caught:
        read_weights(str(path), "0" * 64)
    assert hashlib.sha256(b"anything").hexdigest() in str(caught.value)
    assert "0" * 64 in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.pth",
            b"x\x1b[2J",
            r"found a file that begins with b'x\x1b[2J'; allowed: a safetensors file, or one",
        ),
        ("a.safetensors", b"", "found an empty file; allowed:"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "found a Git LFS pointer"),
        ("a.pth", b"\n<!DOCTYPE html>", "found a web page"),
        ("a.pth", b"PK\x03\x04 and no more", "cannot be loaded: it is cut or damaged"),
        ("a.pth", b"\x80\x02}q\x00", "cannot be loaded: it is cut or damaged"),
        ("a.safetensors", b"\x09\0\0\0\0\0\0\0{", "cannot be loaded: it is cut or damaged"),
        ("missing.pth", None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_weights_file_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=re.escape(message)) as caught:
        read_weights(str(tmp_path / name))
    assert str(caught.value).isprintable()


def test_weights_are_known_by_their_content_not_by_their_name(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    torch.save(state, tmp_path / "a.pth.tar")
    torch.save(state, tmp_path / "b.ckpt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "c.bin")
    for name in ("a.pth.tar", "b.ckpt", "c.bin"):
        found = read_weights(str(tmp_path / name)).state
        assert found.keys() == state.keys()
        assert all(torch.equal(found[key], state[key]) for key in state)


CHECKPOINTS: list[tuple[Any, str]] = [
    (lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
    (lambda state: {"state_dict": state, "metric": np.float64(0.9)}, "numpy._core.multiarray.scalar"),
    (lambda _: nn.Linear(3, 2), "torch.nn.modules.linear.Linear"),
    (lambda _: {"model": nn.Linear(3, 2)}, "torch.nn.modules.linear.Linear"),
]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(("checkpoint", "kind"), CHECKPOINTS)
def test_a_checkpoint_of_more_than_tensors_says_how_to_save_it_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    state: dict[str, Tensor],
    checkpoint: Any,
    kind: str,
    old: bool,
) -> None:
    path = tmp_path / "it's.pth"
    torch.save(checkpoint(state), path, _use_new_zipfile_serialization=not old)
    with pytest.raises(ModelError) as caught:
        read_weights(str(path))
    message, command = str(caught.value).split("\n")
    assert message == (
        f"the weights file {path} cannot be loaded: it holds other objects than tensors: {kind}, and loading "
        "these executes code. If you trust it, save its tensors alone, where the code that made it is "
        "installed, and give tensors.pth as weights:"
    )
    _, flag, code = shlex.split(command)
    assert flag == "-c"
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert read_weights("tensors.pth").state.keys() == state.keys()


def test_a_program_in_place_of_weights_says_how_to_save_its_tensors(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.script(nn.Linear(3, 2)), str(tmp_path / "a.pt"))
    with pytest.raises(ModelError, match=r"found a TorchScript program; save its tensors with"):
        read_weights(str(tmp_path / "a.pt"))


def test_which_of_several_sets_of_tensors_was_taken_is_said(tmp_path: Path, state: dict[str, Tensor]) -> None:
    smoothed = {key: value + 1 for key, value in state.items()}
    torch.save({"state_dict_ema": smoothed, "state_dict": state, "epoch": 3}, tmp_path / "a.pth")
    found = read_weights(str(tmp_path / "a.pth"))
    assert torch.equal(found.state["bias"], state["bias"])
    assert str(found) == f"{tmp_path}/a.pth, its 'state_dict', not its 'state_dict_ema'"
    torch.save({"params_ema": smoothed}, tmp_path / "b.pth")
    assert torch.equal(read_weights(str(tmp_path / "b.pth")).state["bias"], smoothed["bias"])
    torch.save({"params_ema": smoothed, "params": state}, tmp_path / "c.pth")
    with pytest.raises(
        ModelError,
        match=r"several sets of tensors \('params_ema', 'params'\); say which with `state: params_ema`",
    ):
        read_weights(str(tmp_path / "c.pth"))


def sets(plain: dict[str, Tensor], averaged: dict[str, Tensor]) -> list[dict[str, Any]]:
    """Checkpoints with two sets of tensors, as they are saved by those who are named."""
    optimizer = {"state": {0: {"exp_avg": plain["bias"]}}, "param_groups": [{"lr": 0.1}]}
    more = {"optimizer": optimizer, "epoch": 3}
    return [
        {"state_dict": plain, "state_dict_ema": averaged, "arch": "resnet50", **more},  # timm
        {"model": plain, "model_ema": averaged, **more},  # torchvision's references, ConvNeXt
        {"model": plain, "ema": {"module": averaged, "updates": 7, "warmups": 2000}, **more},  # RT-DETR
        {"model_state_dict": plain, "ema_state_dict": averaged, "optimizer_state_dict": optimizer},
    ]


@pytest.mark.parametrize("number", range(4))
def test_a_state_is_taken_by_its_name_and_what_is_taken_is_said(
    tmp_path: Path, state: dict[str, Tensor], number: int
) -> None:
    checkpoint = sets(state, {key: value + 1 for key, value in state.items()})[number]
    torch.save(checkpoint, path := str(tmp_path / "a.pth"))
    plain, averaged = [key for key in checkpoint if "optimizer" not in key and key not in ("arch", "epoch")]
    path_of = "ema.module" if averaged == "ema" else averaged
    for wanted, bias, said in (
        (None, 1, f"its {plain!r}, not its {path_of!r}"),
        (plain, 1, f"its {plain!r}, not its {path_of!r}"),
        ("ema", 2, f"its {path_of!r}, not its {plain!r}"),
        (averaged, 2, f"its {path_of!r}, not its {plain!r}"),
        (path_of, 2, f"its {path_of!r}, not its {plain!r}"),
    ):
        found = read_weights(path, state=wanted)
        assert found.state["bias"].tolist() == [bias, bias]
        assert found.said == (said,)
    with pytest.raises(ModelError) as caught:
        read_weights(path, state="emma")
    assert str(caught.value) == (
        f"state: found 'emma', but the weights file {path} has no such set of tensors; allowed: {plain!r}, "
        f"{path_of!r}"
    )


def test_a_state_that_is_not_one_set_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(
        ModelError, match=r"found 'ema', but .*a\.pth holds one set .*, which has no name; leave"
    ):
        read_weights(str(tmp_path / "a.pth"), state="ema")
    torch.save({"ema": {"fast": state, "slow": state}, "net": state}, tmp_path / "b.pth")
    with pytest.raises(ModelError, match=r"'ema' may be each of several .* \('ema.fast', 'ema.slow'\); name"):
        read_weights(str(tmp_path / "b.pth"), state="ema")
    assert read_weights(str(tmp_path / "b.pth"), state="ema.slow").said == (
        "its 'ema.slow', not its 'ema.fast' or 'net'",
    )


def lightning(state: dict[str, Tensor]) -> dict[str, Any]:
    """A checkpoint with the keys that Lightning's Trainer writes, of a module whose network is `net`."""
    return {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": {f"net.{key}": value for key, value in state.items()}
        | {"criterion.weight": torch.ones(2)},
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val'}": {"best_model_score": torch.tensor(0.9)}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": OrderedDict(lr=0.1, arch="linear"),
    }


def test_lightnings_checkpoints_are_read_and_the_tensors_of_the_loss_left_out_and_said(
    tmp_path: Path, state: dict[str, Tensor]
) -> None:
    torch.save(lightning(state), tmp_path / "a.ckpt")
    file = read_weights(str(tmp_path / "a.ckpt"))
    loaded = load_state(module := nn.Linear(3, 2), file, "linear")
    assert all(torch.equal(module.state_dict()[key], state[key]) for key in state)
    assert str(loaded) == (
        f"{tmp_path}/a.ckpt, its 'state_dict', not its \"callbacks.ModelCheckpoint{{'monitor': 'val'}}\", "
        "'net.' left out of its names, without 1 tensor beside these (criterion.weight)"
    )


YOLO = [
    (
        "ultralytics.nn.tasks",
        "DetectionModel",
        "export it with Ultralytics and name the ONNX file as `model`:",
        "yolo export 'model=my net.pt' format=onnx",
    ),
    (
        "models.yolo",
        "Model",
        "export it in the folder of YOLOv5 that it was trained in, and name the ONNX file as `model`:",
        "python export.py --weights 'my net.pt' --include onnx",
    ),
]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(("module", "kind", "advice", "command"), YOLO)
def test_a_checkpoint_of_ultralytics_is_refused_with_the_line_that_exports_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
    kind: str,
    advice: str,
    command: str,
    old: bool,
) -> None:
    parts = module.split(".")
    names = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    path = tmp_path / "my net.pt"
    with monkeypatch.context() as context, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older format looks for the source of the class
        for name in names:
            context.setitem(sys.modules, name, ModuleType(name))
        made = type(kind, (nn.Module,), {"__module__": module})
        setattr(sys.modules[module], kind, made)
        torch.save({"epoch": -1, "model": made(), "ema": None}, path, _use_new_zipfile_serialization=not old)
    with pytest.raises(ModelError) as caught:
        read_weights(str(path))
    first, second = str(caught.value).split("\n")
    assert first == (
        f"the weights file {path} cannot be loaded: it holds objects of its training code, which only "
        f"executing it could load; {advice}"
    )
    assert second == f"  {command}"


def test_the_names_in_a_pickle_are_read_without_executing_it(tmp_path: Path) -> None:
    torch.save({"a": argparse.Namespace(x=Trap())}, tmp_path / "a.pth")
    assert {"argparse.Namespace", "pathlib.Path.touch"} & pickled_names((tmp_path / "a.pth").read_bytes())
    assert "argparse.Namespace" in pickled_names(pickle.dumps(argparse.Namespace(), protocol=4))
    assert pickled_names(b"\x80\x02garbage") == set()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused_with_the_first_tensor(value: float) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    assert_finite([module], "a model", "f.pth")
    for number, name in ((1, "running_var"), (0, "bias")):
        with torch.no_grad():
            getattr(module[number], name)[1] = value
        with pytest.raises(
            ModelError, match=rf"^the weights of a model \(f\.pth\) are broken: {number}\.{name} has NaN"
        ):
            assert_finite([module], "a model", "f.pth")
    with pytest.raises(ModelError, match=r"0\.bias has NaN or infinite values \(2 of 7 tensors have\)"):
        assert_finite([module.half()], "a model", "f.pth")


def test_the_mask_of_an_attention_is_no_broken_weight() -> None:
    module = nn.Linear(3, 2)
    module.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))
    module.register_buffer("empty", torch.ones(0))
    assert_finite([module], "a model", "")
    module.register_buffer("mask", torch.full((4, 4), torch.inf).triu(1))
    with pytest.raises(ModelError, match="the weights of a model are broken: mask has NaN or infinite"):
        assert_finite([module], "a model", "")


def compiled(module: nn.Module) -> nn.Module:
    """A module with the names that torch.compile gives it, without its ten seconds."""
    return nn.Sequential(OrderedDict(_orig_mod=module))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: nn.Sequential(OrderedDict(module=model)),
        lambda model: nn.Sequential(OrderedDict(model=nn.Sequential(OrderedDict(module=model)))),
        compiled,
        lambda model: nn.Sequential(OrderedDict(net=compiled(model))),
        lambda model: nn.Sequential(compiled(model[0]), model[1]),
        torch.optim.swa_utils.AveragedModel,
    ],
)
def test_what_wrappers_put_before_the_names_is_left_out(wrap: Any) -> None:
    model, other = (nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(2))
    state = wrap(model).state_dict()
    assert state.keys() != other.state_dict().keys()
    loaded = load_state(other, of_file(state), "linear")
    assert re.fullmatch(r"f\.pth, ('\w+\.'( and )?)+ left out of its names", str(loaded))
    assert all(map(torch.equal, other.state_dict().values(), model.state_dict().values()))


def test_a_prefix_that_does_not_help_stays_in_the_message() -> None:
    with pytest.raises(ModelError, match=r"1 tensor unexpected \(other\.x\)"):
        load_state(nn.Linear(3, 2), of_file({"other.x": torch.ones(1)}), "linear")
    state = {f"module.{key}": value for key, value in nn.Linear(3, 4, bias=False).state_dict().items()}
    with pytest.raises(
        ModelError, match=r"1 tensor of another shape \(weight is \(4, 3\), the model's \(2, 3\)\)"
    ):
        load_state(nn.Linear(3, 2, bias=False), of_file(state), "linear")


def test_a_file_without_tensors_by_name_is_refused(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="does not hold tensors by name"):
        read_weights(str(tmp_path / "list.pth"))


def test_tensors_that_do_not_fit_are_named(state: dict[str, Tensor]) -> None:
    given = of_file({"weight": state["weight"], "extra": state["bias"]})
    with pytest.raises(ModelError) as caught:
        load_state(nn.Linear(4, 2), given, "linear")
    assert str(caught.value) == (
        "the weights file f.pth does not fit linear: 1 tensor missing (bias); 1 tensor unexpected (extra); "
        "1 tensor of another shape (weight is (2, 3), the model's (2, 4))"
    )


def test_a_count_of_averages_alone_does_not_fit() -> None:
    with pytest.raises(ModelError, match=r"does not fit a model: .* missing"):
        load_state(nn.Linear(2, 2), of_file({"n_averaged": torch.tensor(1)}), "a model")


def damaged(state: dict[str, Tensor]) -> dict[str, bytes]:
    """Files of torch's that are damaged in ways that each library has its own exception for."""
    file = io.BytesIO()
    torch.save(state, file)
    data = file.getvalue()
    directory = data.index(b"PK\x01\x02")
    cases = {"directory": data[:directory] + b"XX" + data[directory + 2 :], "cut": data[: len(data) // 2]}
    chance = random.Random(0)
    return cases | {f"garbage {size}": b"\x80\x02" + chance.randbytes(size) for size in range(1, 60)}


def test_no_damage_ends_in_a_traceback(tmp_path: Path, state: dict[str, Tensor]) -> None:
    for name, data in damaged(state).items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(data)
        with pytest.raises(ModelError, match=re.escape(str(path))):
            read_weights(str(path))
