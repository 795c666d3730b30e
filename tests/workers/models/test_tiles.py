import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from schemas.images import DecodedImage, Detections
from schemas.tasks import TilesSpec
from tests.workers.models.pictures import noise
from workers.models import tiles
from workers.models.folding import overlaps
from workers.models.tiles import COVERED, Candidates, Part, Region, Tiling, suppress

SIDE = st.integers(1, 700)
SPECS = st.builds(TilesSpec, size=st.integers(64, 300), overlap=st.floats(0, 0.5))


def tiling(size: int = 100, overlap: float = 0.2, iou: float = 0.6) -> Tiling:
    return Tiling(size, TilesSpec.model_construct(size=size, overlap=overlap).step, iou)


def detections(*rows: tuple[float, ...]) -> Detections:
    """Objects of rows x1, y1, x2, y2, score, class id."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(np.int32))


@given(SPECS, SIDE, SIDE)
def test_tiles_cover_an_image_overlap_enough_and_none_is_a_sliver(
    spec: TilesSpec, width: int, height: int
) -> None:
    regions = tiling(spec.size, spec.overlap).regions(width, height)
    if max(width, height) <= spec.size:
        assert regions == []
        return
    covered = np.zeros((height, width), bool)
    for left, top, right, bottom in regions:
        assert (right - left, bottom - top) == (min(spec.size, width), min(spec.size, height))
        covered[top:bottom, left:right] = True
    assert covered.all()
    for starts in (sorted({r.left for r in regions}), sorted({r.top for r in regions})):
        steps = np.diff(starts)
        assert (steps <= spec.size - spec.size * spec.overlap).all()
        assert not len(steps) or steps.max() - steps.min() <= 1  # the last overlaps no more than others
    assert len(set(regions)) == len(regions)


@given(SPECS, SIDE, SIDE)
def test_no_image_has_more_tiles_than_it_is_said_to_have_at_most(
    spec: TilesSpec, width: int, height: int
) -> None:
    width, height = max(width, spec.size), max(height, spec.size)
    found = tiling(spec.size, spec.overlap).regions(width, height)
    assert len(found) <= spec.most_in(width * height)


def test_the_tiles_of_the_example_are_those_of_the_page() -> None:
    assert len(tiling(1024).regions(4000, 3000)) == 20
    assert tiling(1024).regions(1500, 900) == [Region(0, 0, 1024, 900), Region(476, 0, 1500, 900)]
    assert tiling(1024).regions(1024, 1024) == []


def test_a_tile_is_a_view_of_its_image_and_the_whole_comes_first() -> None:
    image = noise(0, 130, 250)
    whole, *others = tiling().parts(image)
    assert whole.image is image
    assert len(others) == 2 * 3
    for part in others:
        left, top, right, bottom = part.region
        assert np.shares_memory(part.image.pixels, image.pixels)
        np.testing.assert_array_equal(part.image.pixels, image.pixels[top:bottom, left:right])


def test_an_image_that_fits_into_a_tile_is_one_part() -> None:
    image = noise(0, 100, 90)
    assert tiling().parts(image) == [Part(image, Region(0, 0, 90, 100))]


def test_a_very_large_whole_is_made_smaller_by_means_and_its_boxes_are_placed_by_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiles, "WHOLE_PIXELS", 5_000)
    image = noise(1, 151, 302)
    whole, *others = tiling().parts(image)
    assert (whole.image.width, whole.image.height) == (302 // 4, 151 // 4)
    want = image.pixels[:148, :300].astype(float).reshape(37, 4, 75, 4, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(whole.image.pixels, want, atol=0.51)
    found = tiling().merged(
        [whole, *others], [detections((10, 5, 20, 15, 0.9, 0)), *[detections()] * len(others)]
    )
    np.testing.assert_allclose(found.boxes, [[40, 20, 80, 60]])


def merged(*found: Detections, width: int = 180, iou: float = 0.6) -> list[list[float]]:
    """The boxes that are kept of the whole and of the two tiles, from 0 to 100 and from 80 to 180."""
    cut = tiling(iou=iou)
    parts = cut.parts(noise(0, 100, width))
    assert [part.region.left for part in parts] == [0, 0, 80]
    return [[round(float(x), 4) for x in box] for box in cut.merged(parts, found).boxes]


def test_boxes_are_in_pixels_of_the_whole_image() -> None:
    got = merged(detections(), detections((10, 20, 30, 40, 0.5, 0)), detections((50, 30, 70, 60, 0.9, 1)))
    assert got == [[130, 30, 150, 60], [10, 20, 30, 40]]


def test_an_object_that_several_parts_show_is_one_the_best() -> None:
    got = merged(
        detections((82, 10, 98, 30, 0.5, 0)),
        detections((82, 10, 98.5, 30, 0.7, 0)),
        detections((2, 10, 18, 30.5, 0.6, 0)),
    )
    assert got == [[82, 10, 98.5, 30]]


def test_objects_of_two_classes_are_two() -> None:
    box = (82.0, 10.0, 98.0, 30.0)
    assert len(merged(detections((*box, 0.5, 0)), detections((*box, 0.7, 1)), detections())) == 2


def test_a_part_of_an_object_goes_though_it_scores_better_than_the_object() -> None:
    got = merged(
        detections((60, 10, 140, 90, 0.5, 0)),
        detections((60, 10, 100, 90, 0.95, 0)),
        detections((0, 10, 60, 90, 0.9, 0)),
    )
    assert got == [[60, 10, 140, 90]]


def test_a_small_object_before_a_large_one_of_its_class_is_no_part_of_it() -> None:
    got = merged(detections((5, 5, 170, 95, 0.9, 0)), detections((20, 20, 40, 40, 0.8, 0)), detections())
    assert got == [[5, 5, 170, 95], [20, 20, 40, 40]]


def test_a_box_at_the_border_of_the_image_is_whole() -> None:
    got = merged(detections((0, 5, 170, 95, 0.5, 0)), detections((0, 20, 40, 40, 0.8, 0)), detections())
    assert got == [[0, 20, 40, 40], [0, 5, 170, 95]]


def test_two_objects_that_a_detector_tells_apart_in_one_part_stay_two() -> None:
    near = detections((10, 10, 50, 50, 0.9, 0), (12, 10, 52, 50, 0.8, 0))
    assert len(merged(detections(), near, detections())) == 2
    assert len(merged(near, near, detections())) == 2


def test_classes_of_one_name_by_a_class_map_are_one() -> None:
    cut = tiling()
    parts = cut.parts(noise(0, 100, 180))
    box = (10.0, 10.0, 50.0, 50.0)
    found = [detections((*box, 0.9, 0)), detections((*box, 0.8, 1)), detections((*box, 0.7, 2))]
    got = cut.merged(parts, found, np.array([0, 0, 1]))
    np.testing.assert_array_equal(got.class_ids, [0, 2])


def plain(found: Candidates, iou: float, covered: float) -> list[int]:
    """The same, each box with each."""
    shares = overlaps(found.boxes)
    exact = found.boxes.astype(float)
    area = (exact[:, 2:] - exact[:, :2]).prod(axis=1)
    chosen: list[int] = []
    for index in np.lexsort((-found.scores, found.is_cut)):
        for other in chosen:
            if found.groups[other] != found.groups[index] or found.parts[other] == found.parts[index]:
                continue
            sides = np.minimum(exact[index, 2:], exact[other, 2:]) - np.maximum(
                exact[index, :2], exact[other, :2]
            )
            common = sides.clip(0).prod()
            if shares[index, other] > iou or (found.is_cut[index] and common > covered * area[index]):
                break
        else:
            chosen.append(int(index))
    return chosen


def candidates(seed: int, n: int, side: float, spread: float, groups: int = 2) -> Candidates:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, spread, (n, 2))
    sides = side * 2 ** random.uniform(-4, 0, (n, 2))
    boxes: NDArray[np.float32] = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    scores = (random.integers(1, 60, n) / 64).astype(np.float32)
    return Candidates(
        boxes, scores, random.integers(0, groups, n), random.integers(0, 5, n), random.random(n) < 0.4
    )


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10**6),
    st.integers(0, 80),
    st.sampled_from([0.0, 0.05, 0.3, 0.5, 0.6, 0.9, 1.0]),
    st.sampled_from([0.5, 20.0, 300.0]),
    st.sampled_from([1.0, 60.0, 900.0]),
)
def test_the_grid_finds_what_comparing_all_with_all_finds(
    seed: int, n: int, iou: float, side: float, spread: float
) -> None:
    found = candidates(seed, n, side, spread)
    assert suppress(found, iou, COVERED).tolist() == plain(found, iou, COVERED)


def heap(n: int) -> NDArray[np.float32]:
    return np.tile(np.array([[100, 100, 150, 150]], np.float32), (n, 1))


@pytest.mark.parametrize("shape", ["spread out", "one heap"])
def test_many_boxes_are_merged_in_little_memory(shape: str) -> None:
    n = 20_000
    found = candidates(0, n, 60, 20_000, groups=1)
    found = found._replace(parts=np.arange(n) % 600)
    if shape == "one heap":
        found = found._replace(boxes=heap(n))
    tracemalloc.start()
    kept = suppress(found, 0.6, COVERED)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * 2**20  # each with each is 3 GB
    assert n / 2 < len(kept) < n if shape == "spread out" else len(kept) < 1_000


def test_the_merge_keeps_the_order_of_scores_and_of_parts() -> None:
    cut = tiling()
    image = DecodedImage(np.zeros((100, 180, 3), np.uint8), "PNG", 1, "RGB", 1)
    found = [
        detections((0, 0, 5, 5, 0.5, 0), (60, 0, 65, 5, 0.25, 0)),
        detections((20, 0, 25, 5, 0.5, 0)),
        detections((20, 0, 25, 5, 0.75, 0)),
    ]
    got = cut.merged(cut.parts(image), found)
    assert got.scores.tolist() == [0.75, 0.5, 0.5, 0.25]
    assert got.boxes[:, 0].tolist() == [100, 0, 20, 60]
    assert [x.dtype.name for x in (got.boxes, got.scores, got.class_ids)] == ["float32", "float32", "int32"]


def test_a_box_that_float32_cannot_tell_from_a_line_is_dropped() -> None:
    cut = tiling()
    image = DecodedImage(np.zeros((50, 20_000, 3), np.uint8), "PNG", 1, "RGB", 1)
    parts = cut.parts(image)
    found = [detections() for _ in parts[1:]]
    thin, whole = (5.0001, 5, 5.0002, 9, 0.9, 0), (7, 5, 9, 9, 0.8, 0)
    got = cut.merged(parts, [*found, detections(thin, whole)])
    np.testing.assert_allclose(got.scores, [0.8])
    assert got.boxes.tolist() == [[19_907, 5, 19_909, 9]]


def test_boxes_of_one_part_are_not_compared_however_many_are_in_one_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workers.models.tiles._suppresses", None)
    count = 3_000
    boxes = np.tile(np.array([3, 3, 30, 30], np.float32), (count, 1))
    zeros = np.zeros(count, np.int64)
    found = Candidates(boxes, np.ones(count, np.float32), zeros, zeros, zeros.astype(bool))
    assert suppress(found, 0.5, COVERED).tolist() == list(range(count))
