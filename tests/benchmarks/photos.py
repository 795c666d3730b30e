"""Photos to measure with: JPEG files of about 100 KB, cut from real ones, the same on every machine.

python -m tests.benchmarks.photos [HOW MANY]
"""

import io
import random
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "bench"
DEMO = ROOT / "infra" / "demo" / "photos"
EVAL = ROOT.parent / "shared" / "eval"
SEED = 20_261_126
LONG_SIDES = (480, 640, 640, 800)
BYTES = (60_000, 140_000)
QUALITIES = range(50, 98, 3)


def make_photos(count: int) -> Path:
    """A folder of so many photos; made once."""
    sources = source_photos()
    folder = BUILD / f"photos-{count}-of-{len(sources)}-{SEED}"
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(".unfinished")
    unfinished.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        file = unfinished / f"{number:06d}.jpg"
        file.write_bytes(made(sources[number % len(sources)], random.Random(SEED + number)))
    return unfinished.rename(folder)


def repeated(photos: Path, times: int) -> Path:
    """A folder that has each photo several times, as hard links; made once."""
    folder = photos.with_name(f"{photos.name}-x{times}")
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(".unfinished")
    unfinished.mkdir(exist_ok=True)
    for file in photos.glob("*.jpg"):
        for number in range(times):
            link = unfinished / f"{number:03d}-{file.name}"
            link.unlink(missing_ok=True)
            link.hardlink_to(file)
    return unfinished.rename(folder)


def source_photos() -> list[Path]:
    """The demo's photos, and the labelled ones where they lie beside the project."""
    return sorted(
        file
        for folder in (DEMO, EVAL / "coco64", EVAL / "imagenet63")
        for file in folder.glob("*")
        if file.suffix.lower() in {".jpg", ".jpeg", ".png"}
    )


def made(source: Path, chance: random.Random) -> bytes:
    """One photo cut out of another, at a size and a quality of its own."""
    with Image.open(source) as opened:
        image = cropped(opened.convert("RGB"), chance)
    scale = chance.choice(LONG_SIDES) / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    return encoded(image, chance.uniform(*BYTES))


def cropped(image: Image.Image, chance: random.Random) -> Image.Image:
    """A random part: 70 to 100% of each side."""
    width, height = (round(side * chance.uniform(0.7, 1)) for side in image.size)
    left, top = chance.randint(0, image.width - width), chance.randint(0, image.height - height)
    return image.crop((left, top, left + width, top + height))


def encoded(image: Image.Image, size: float) -> bytes:
    """As JPEG in the quality that comes nearest to a size in bytes from above."""
    low, high = 0, len(QUALITIES) - 1
    while low < high:
        middle = (low + high) // 2
        if len(as_jpeg(image, QUALITIES[middle])) < size:
            low = middle + 1
        else:
            high = middle
    return as_jpeg(image, QUALITIES[low])


def as_jpeg(image: Image.Image, quality: int) -> bytes:
    """The bytes of a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


if __name__ == "__main__":
    print(make_photos(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
