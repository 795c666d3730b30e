"""The functions that build each child's work; a `workers.process.child.Child` calls them in its process.

The only place in `workers` that imports torch late: parents import this module, children call it.
"""

import logging
from collections.abc import Callable
from typing import Any

from schemas.locations import Location
from schemas.models import ResolvedModel
from schemas.prediction import Probed
from schemas.spec import JobSpec
from workers import logs
from workers.label.settings import LabelFunction, LabelSettings, UnitRequest
from workers.process.serve import StageCallback
from workers.storage.options import configure_storage

ResolvedModels = dict[str, ResolvedModel]
"""A job's models, by name."""

ProbeRequest = list[Location] | None
"""First the locations of the images, which are fetched; then None: they are decoded and labelled."""


def build_model_resolver(spec: JobSpec) -> Callable[[None, StageCallback], ResolvedModels]:
    """Builds a job's models; returns a function that returns what they are."""
    from workers.models.registry import load_all, runners_of
    from workers.models.runtime import assert_runtime

    configure_storage(spec.reached)
    models = load_all(spec.models)
    for loaded in models.values():
        assert_runtime(loaded.model, spec.compute.runtime)
    if (runtime := spec.compute.runtime) == "onnxruntime":  # known by trying; "auto" takes what runs
        import torch

        from workers.models.runner import RunnerOptions

        runners_of(models, RunnerOptions(torch.device("cpu"), 1, spec.compute.precision, runtime))
    resolved = {name: model.resolved for name, model in models.items()}
    return lambda *_: resolved


def build_decoder(settings: LabelSettings) -> Any:
    """Builds a `workers.label.decoder.Decoder`."""
    from workers.label.decoder import Decoder

    return _built(Decoder, settings)


def build_labeller(settings: LabelSettings) -> LabelFunction:
    """Builds a `workers.label.labeller.Labeller`."""
    from workers.label.labeller import Labeller

    function: LabelFunction = _built(Labeller, settings)
    return function


def build_profiler(settings: LabelSettings) -> Callable[[ProbeRequest, StageCallback], Probed | None]:
    """Builds a `workers.label.profiler.Profiler`. It logs only warnings: its stderr is the terminal."""
    from workers.label.profiler import Profiler

    logs.configure(level=logging.WARNING)
    configure_storage(settings.storage)
    profiler = Profiler(settings)

    def answer(locations: ProbeRequest, on_stage: StageCallback) -> Probed | None:
        if locations is None:
            return profiler.profile(on_stage)
        profiler.fetch(locations)
        return None

    return answer


def build_photo_embedder(what: tuple[JobSpec, str]) -> Callable[[Location, StageCallback], Any]:
    """Builds a `workers.label.embed.PhotoEmbedder` of a spec and a fingerprint."""
    from workers.label.embed import PhotoEmbedder

    spec, fingerprint = what
    configure_storage(spec.reached)
    return PhotoEmbedder(spec, fingerprint)


def build_text_embedder(what: tuple[JobSpec, ResolvedModel]) -> Callable[[str, StageCallback], Any]:
    """Builds a `workers.label.embed.TextEmbedder` of a spec and its embedder as the run has it."""
    from workers.label.embed import TextEmbedder

    spec, resolved = what
    configure_storage(spec.reached)
    return TextEmbedder(spec.models["embedder"], resolved)


def build_gpu_counter(_: None) -> Callable[[None, StageCallback], int]:
    """Returns a function that counts GPUs: a process that has asked a GPU's library cannot be forked."""
    import torch

    return lambda _, __: torch.cuda.device_count()


def _built(build: Callable[[LabelSettings], Any], settings: LabelSettings) -> Any:
    """Builds a function of requests; lines that it logs have the run, and the unit of the request."""
    logs.configure(settings.run_id)
    configure_storage(settings.storage)
    function = build(settings)

    def answer(request: UnitRequest, on_stage: StageCallback) -> Any:
        with logs.in_unit(request.unit):
            return function(request, on_stage)

    return answer
