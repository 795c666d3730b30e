"""Which model a name means, and what a job makes of it."""

import difflib
import re

from schemas.exceptions import ModelError
from schemas.models import ModelInfo, ResolvedModel
from schemas.spec import ClassifierSpec, DetectorSpec
from workers.models import efficientnet_lite0, factory, nanodet, timm_models, torchvision_models
from workers.models.categories import thresholds_by_class
from workers.models.detection import apply_settings
from workers.models.model import Built, ClassifierModel, DetectorModel, LoadedClassifier, LoadedDetector
