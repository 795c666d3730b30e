from jobs.prepare.resolve import ResolvedJob
from schemas.ledger import SourceFile
from schemas.spec_file import build_spec
from tests.workers.tables.made_results import CLASSIFIER, DETECTOR, EMBEDDER, SCENE
from workers.manifest.sources import Source


def test_a_jobs_facts_are_its_manifest_output_models_and_thresholds() -> None:
    detector = {"score_threshold": 0.3, "class_thresholds": {"person": 0.5, "boat": 0.25}}
    further = {
        "embedder": "feel",
        "taggers": {"scene": {"model": "look", "score_threshold": 0.2, "top_k": 2}},
    }
    spec = build_spec({"manifest": "photos", "output": "out", "detector": detector, **further}, "a test")
    source = Source(SourceFile(uri="photos", size=1, version="1"), "photos", "images", "photos")
    models = {"classifier": CLASSIFIER, "detector": DETECTOR, "embedder": EMBEDDER, "taggers.scene": SCENE}
    job = ResolvedJob(spec, [source], models)
    assert job.facts() == [
        ("manifest", "photos (1 image)"),
        ("output", "out"),
        ("classifier", f"{CLASSIFIER.fingerprint} (1x1, 3 classes), top 3"),
        ("detector", f"{DETECTOR.fingerprint} (1x1, 3 classes), score above 0.3 (person 0.5, boat 0.25)"),
        ("embedder", f"{EMBEDDER.fingerprint} (1x1, 4 numbers), length 1"),
        ("taggers.scene", f"{SCENE.fingerprint} (1x1, 3 classes), top 2, score above 0.2"),
    ]
