"""What runs in child processes: the builders that each is given.

The only place in `workers` that imports torch late: in the child that a builder is called in.
"""

from collections.abc import Callable
from typing import Any

from schemas.locations import Location
from schemas.models import ResolvedModel
from schemas.prediction import Probed
from schemas.spec import (
    JobSpec,
)
from workers.label.settings import Label, LabelSettings
from workers.process.serve import StageCallback
from workers.storage.options import configure_storage

Models = tuple[ResolvedModel | None, ResolvedModel | None]


def resolve_models(spec: JobSpec) -> Callable[[None, StageCallback], Models]:
    """What the child does: builds the models, and says what they are; only there is torch imported."""
    from workers.models.registry import load_classifier, load_detector

    configure_storage(spec.storage)
    classifier = load_classifier(spec.classifier) if spec.classifier else None
    detector = load_detector(spec.detector) if spec.detector else None
    resolved = (classifier.resolved if classifier else None, detector.resolved if detector else None)
    if (runtime := spec.compute.runtime) == "onnxruntime":  # known by trying; "auto" takes what runs
        import torch

        from workers.models.classifier import Classifier
        from workers.models.detector import Detector

        how = (torch.device("cpu"), 1, spec.compute.precision, runtime)
        if classifier:
            Classifier(classifier, *how)
        if detector:
            Detector(detector, *how)
    return lambda *_: resolved


def build_decoder(settings: LabelSettings) -> Any:
    """What the child does: only there is torch imported."""
    from workers.label.decoder import Decoder

    configure_storage(settings.places)
    return Decoder(settings)


def build_labeller(settings: LabelSettings) -> Label:
    """What the child does: only there is torch imported."""
    from workers.label.labeller import Labeller

    configure_storage(settings.places)
    return Labeller(settings)


ProbeRequest = list[Location] | None
"""First the locations of the images, which are fetched; then None: they are decoded and labelled."""


def build_profiler(settings: LabelSettings) -> Callable[[ProbeRequest, StageCallback], Probed | None]:
    """What the child does: only there is torch imported."""
    from workers.label.profiler import Prober

    configure_storage(settings.places)
    built = Prober(settings)

    def answer(locations: ProbeRequest, on_stage: StageCallback) -> Probed | None:
        if locations is None:
            return built.probed(on_stage)
        built.fetch(locations)
        return None

    return answer


def gpu_counter(_: None) -> Callable[[None, StageCallback], int]:
    """Another child, which tells how many GPUs there are: whoever asks a GPU's library cannot be forked."""
    import torch

    return lambda _, __: torch.cuda.device_count()
