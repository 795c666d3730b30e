import array
import ctypes
import dataclasses
import datetime
import enum
import functools
import io
import json
import logging
import operator
import os
import random
import re
import struct
import subprocess
import sys
import threading
import warnings
import weakref
from abc import ABC, abstractmethod
from argparse import Namespace
from collections import OrderedDict, deque, namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path, PurePosixPath
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple, Protocol, TypedDict

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from PIL import Image
from pydantic import BaseModel, ConfigDict, PrivateAttr
from timm.data import create_transform
from torch import nn

from tests.conftest import ROOT
from workers.models.digest import digest_of
from workers.models.objects import UnpinnedError
from workers.models.runtime import export_onnx

LOG = logging.getLogger(__name__)
LOCK = threading.Lock()


class Holder(nn.Module):
    """A module that holds something, as those of a user's factory do."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        LOG.info("%s", LOCK)
        return batch


class Slotted:
    __slots__ = ("__hidden", "shown")

    def __init__(self, shown: int, hidden: int) -> None:
        self.shown, self.__hidden = shown, hidden


class Named(dict[str, int]):
    scale = 1


class Counted(list[int]):
    pass


class Wrapper:
    """A decorator with a setting."""

    def __init__(self, function: Callable[..., Any], by: int) -> None:
        self.by = by
        functools.update_wrapper(self, function)

    def __call__(self, value: int) -> int:
        return value * self.by


class Worker(threading.Thread):
    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by


class Level(enum.IntFlag):
    LOW = 1
    HIGH = 2


class Kind(ABC):
    @abstractmethod
    def kind(self) -> str: ...


class Concrete(Kind):
    def kind(self) -> str:
        return "concrete"


class Named2(NamedTuple):
    width: int


class Typed(TypedDict):
    width: int


class Speaks(Protocol):
    def speak(self) -> str: ...


@dataclasses.dataclass(slots=True)
class Sizes:
    width: int


class Settings(BaseModel):
    model_config = ConfigDict(extra="allow")
    width: int = 1
    _by: int = PrivateAttr(default=1)


def settings(width: int = 1, by: int = 1, **extra: int) -> Settings:
    made = Settings.model_validate({"width": width, **extra})
    made._by = by
    return made


def counted(marker: str) -> Counted:
    made = Counted([1])
    made.marker = marker  # type: ignore[attr-defined]
    return made


def named(scale: int) -> Named:
    made = Named(a=1)
    made.scale = scale
    return made


def hooked(register: str, by: int, **options: bool) -> nn.Module:
    module = nn.Linear(1, 1)
    torch.nn.init.ones_(module.weight)
    torch.nn.init.ones_(module.bias)
    getattr(module, register)(lambda _, *inputs: inputs[-1] * by, **options)
    return module


def twice(same: bool) -> nn.Module:
    part = nn.Sequential()
    return nn.Sequential(part, part) if same else nn.Sequential(part)


def tagged(by: int) -> Callable[[int], int]:
    def scale(value: int) -> int:
        return value

    scale.by = by  # type: ignore[attr-defined]
    return scale


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bound(by: int) -> Callable[[int], int]:
    @torch.no_grad()
    def scale(value: int) -> int:
        return value * by

    return scale


def picture(value: int) -> Image.Image:
    return Image.new("RGB", (2, 2), (value, 0, 0))


PAIRS: dict[str, tuple[object, object]] = {
    "SimpleNamespace": (SimpleNamespace(t=1), SimpleNamespace(t=2)),
    "Namespace": (Namespace(t=1), Namespace(t=2)),
    "deque": (deque([1]), deque([2])),
    "deque's bound": (deque([1], 2), deque([1], 3)),
    "range": (range(1), range(2)),
    "slice": (slice(1), slice(2)),
    "re.Pattern": (re.compile("a"), re.compile("b")),
    "flags": (re.compile("a"), re.compile("a", re.I)),
    "array": (array.array("i", [1]), array.array("i", [2])),
    "Decimal": (Decimal("1.0"), Decimal("1.1")),
    "timedelta": (datetime.timedelta(1), datetime.timedelta(2)),
    "itemgetter": (operator.itemgetter(1), operator.itemgetter(2)),
    "Struct": (struct.Struct("<i"), struct.Struct(">i")),
    "BytesIO": (io.BytesIO(b"1"), io.BytesIO(b"2")),
    "memoryview": (memoryview(b"1"), memoryview(b"2")),
    "a method of a list": ([1].append, [2].append),
    "text with slashes": ("cat/dog", "red/blue"),
    "a fraction": ("1/255", "2/255"),
    "an address": ("0x10", "0x11"),
    "a URL": ("https://a.de/x", "https://b.de/x"),
    "a path's last name": ("/models/a.onnx", "/models/b.onnx"),
    "a relative path": (PurePosixPath("a/x"), PurePosixPath("b/x")),
    "half an emoji": ("\ud83d", "\ud83e"),
    "a dict's order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "OrderedDict": (OrderedDict(a=1), OrderedDict(a=2)),
    "-0.0": (0.0, -0.0),
    "an int of 5,000 digits": (10**5000, 10**5000 + 1),
    "np.float32": (np.float32(1), np.float32(1.0000001)),
    "np.dtype": (np.dtype("<f4"), np.dtype(">f4")),
    "np.ufunc": (np.add, np.subtract),
    "np.vectorize": (np.vectorize(abs), np.vectorize(len)),
    "masks": (np.ma.masked_equal([1, 2], 1), np.ma.masked_equal([1, 2], 2)),
    "fields": (np.array([(1, 2)], "i4,i8"), np.array([(1, 3)], "i4,i8")),
    "torch.dtype": (torch.float32, torch.float16),
    "torch.Generator": (generator(1), generator(2)),
    "a distribution": (
        torch.distributions.Normal(torch.zeros(2), torch.ones(2)),
        torch.distributions.Normal(torch.ones(2), torch.ones(2)),
    ),
    "PIL.Image": (picture(1), picture(2)),
    "slots": (Slotted(1, 1), Slotted(1, 2)),
    "slots of a dataclass": (Sizes(1), Sizes(2)),
    "a dict with attributes": (named(1), named(2)),
    "a list with attributes": (counted("a"), counted("b")),
    "a decorator's setting": (Wrapper(abs, 1), Wrapper(abs, 2)),
    "a thread's setting": (Worker(1), Worker(2)),
    "flags of the user's": (Level.LOW | Level.HIGH, Level.LOW),
    "pydantic": (settings(), settings(width=2)),
    "pydantic's extras": (settings(more=1), settings(more=2)),
    "pydantic's private": (settings(), settings(by=2)),
    "NamedTuple": (Named2(1), Named2(2)),
    "partial": (functools.partial(int, base=2), functools.partial(int, base=3)),
    "a function's attribute": (tagged(1), tagged(2)),
    "a closure in a decorated function": (bound(1), bound(2)),
    "lambdas in one line": (lambda x: x + 1, lambda x: x + 2),
    "evaluated": (eval("lambda x: x + 1"), eval("lambda x: x + 2")),
    "forward hooks": (hooked("register_forward_hook", 1), hooked("register_forward_hook", 2)),
    "forward pre-hooks": (hooked("register_forward_pre_hook", 1), hooked("register_forward_pre_hook", 2)),
    "a part used twice": (twice(True), twice(False)),
    "partial of a library's": (torchvision.transforms.CenterCrop(1), torchvision.transforms.CenterCrop(2)),
    "timm's transform": (create_transform(32), create_transform(33)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_models_that_hold_different_values_differ(name: str) -> None:
    one, other = (digest_of(Holder(value), {__name__}) for value in PAIRS[name])
    assert one != other
    assert one == digest_of(Holder(PAIRS[name][0]), {__name__})


def harmless() -> dict[str, object]:
    """What real factories hold, and what no process may see differently from another."""
    Point = namedtuple("Point", "x y")
    linear = nn.Linear(2, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.arange(4).reshape(2, 2))
        linear.bias.zero_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's deprecations
        scripted = [torch.jit.script(nn.Sequential(linear)), torch.jit.script(linear)]
    cache: weakref.WeakValueDictionary[str, nn.Module] = weakref.WeakValueDictionary(linear=linear)
    words = {f"word {number}" for number in range(99)}
    return {
        "sets": [words, frozenset((word, len(word)) for word in words)],
        "a set of classes": {Settings, Slotted, Level, Concrete, Sizes, Wrapper},
        "a set of functions": {settings, named, tagged, bound, hooked, twice},
        "a set of members": {Level.LOW, Level.HIGH},
        "logs": [LOG, logging.StreamHandler(), sys.__stdout__, sys.__stderr__],
        "locks": [LOCK, threading.RLock(), threading.Event(), threading.local(), threading.Thread()],
        "an executor": ThreadPoolExecutor(1),
        "caches": [cache, weakref.ref(linear)],
        "chance": [random.Random(), np.random.default_rng(), np.random.RandomState()],
        "sentinels": [object(), ..., NotImplemented],
        "the environment": os.environ,
        "kinds": [Kind, Concrete(), Named2, Typed, Speaks, Point(1, 2), list[int], int | None, enum.Enum],
        "scripted": scripted,
        "symbolic": torch.fx.symbolic_trace(linear),
        "cached": functools.lru_cache(settings),
        "transforms": torchvision.models.ResNet18_Weights.DEFAULT.transforms(),
        "timm's": create_transform(224, is_training=True),
        "a place": Path(__file__),
        "a temporary file": f"/tmp/{os.getpid()}/model.onnx",
        "descriptors": [Slotted.shown, str.upper, len],  # type: ignore[misc]
        "modules": [np, torch.nn.functional],
    }


def digests() -> dict[str, str]:
    return {name: digest_of(Holder(value), {__name__}) for name, value in harmless().items()}


def test_what_factories_hold_is_the_same_in_every_process() -> None:
    code = f"import json; from {__name__} import digests; print(json.dumps(digests()))"
    seed = {"PYTHONHASHSEED": "7"}
    out = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | seed,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(out.stdout) == digests()


def session() -> onnxruntime.InferenceSession:
    data = export_onnx(nn.Conv2d(3, 1, 1), torch.zeros(1, 3, 4, 4))
    return onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])


def numbers() -> Any:
    yield 1


UNPINNED: dict[str, tuple[Callable[[], object], str]] = {
    "a session": (session, "value, a onnxruntime.capi.onnxruntime_inference_collection.InferenceSession"),
    "in a library's object": (lambda: SimpleNamespace(a=session()), "value, a types.SimpleNamespace"),
    "in a user's object": (lambda: Wrapper(len, session()), r"value\.by, a onnxruntime.*InferenceSession"),
    "a native library": (lambda: ctypes.CDLL(None), "value, a ctypes.CDLL"),
    "a file that is read": (lambda: open(__file__), "value, a _io.TextIOWrapper"),  # noqa: SIM115
    "a generator": (numbers, "value, a builtins.generator"),
}


@pytest.mark.parametrize("name", UNPINNED)
@pytest.mark.filterwarnings("ignore:unclosed file")
def test_what_does_not_say_what_it_holds_is_refused_unless_its_files_are_named(name: str) -> None:
    make, message = UNPINNED[name]
    with pytest.raises(UnpinnedError, match=message):
        digest_of(Holder(make()), {__name__})
    one, other = (digest_of(Holder(make()), {__name__}, named=True) for _ in range(2))
    assert one == other


def test_a_value_in_a_module_of_a_package_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    package, helper = ModuleType("package"), ModuleType("package.helper")
    package.helper = helper  # type: ignore[attr-defined]
    helper.package = package  # type: ignore[attr-defined]
    user = ModuleType("user")
    user.package = package  # type: ignore[attr-defined]
    exec("def scale(x):\n    return x * package.helper.THRESH", vars(user))
    seen = set()
    for value in (1, 2):
        monkeypatch.setattr(helper, "THRESH", value, raising=False)
        seen.add(digest_of(vars(user)["scale"], {"user", "package", "package.helper"}))
        seen.add(digest_of(helper, {"package", "package.helper"}))
    assert len(seen) == 4
