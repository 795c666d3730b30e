import io

import pytest
from PIL import Image

from tests.workers.decode.checks import decoded, unsupported
from tests.workers.image_files import by_pillow, encode, picture
from workers.decode import gif

PLAIN = encode(picture(mode="P"), "GIF")
COLOURS = 13 + (3 << (PLAIN[10] & 7) + 1)
FRAME = b"\x2c\0\0\0\0\1\0\1\0\0\2\2\x44\1\0"


def test_frames_are_counted_without_decoding_them() -> None:
    many = PLAIN[:-1] + FRAME * 100_000 + b";"
    got = decoded(many)
    assert (got.frame_count, (got.pixels == by_pillow(PLAIN)).all()) == (65_536, True)
    assert decoded(PLAIN[:-1] + b"\x21\xfe\3abc\0" + FRAME * 3 + b"nonsense").frame_count == 4


def test_many_blocks_before_the_first_frame_are_refused_by_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gif, "MAX_BLOCKS", 50)
    comment = b"\x21\xfe" + b"\1x" * 60 + b"\0"
    message = "This GIF file has over 50 blocks of data or comments; allowed: 50. "
    assert unsupported(PLAIN[:COLOURS] + comment + PLAIN[COLOURS:]).startswith(message)
    assert decoded(PLAIN[:-1] + FRAME + comment + FRAME + b";").frame_count == 2


@pytest.mark.parametrize("stray", [b"\0", b"\0\0\0", b"\xff\2stray", b"\n"], ids=repr)
def test_stray_bytes_between_blocks_are_stepped_over_as_in_pillow(stray: bytes) -> None:
    frame = PLAIN[COLOURS:-1]
    data = PLAIN[:COLOURS] + stray.join([b"", frame, FRAME, b"\x21\xfe\3abc\0", FRAME]) + stray + b";" + FRAME
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 3  # type: ignore[attr-defined]
    got = decoded(data)
    assert (got.frame_count, (got.pixels == by_pillow(PLAIN)).all()) == (3, True)


def test_every_block_counts_against_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gif, "MAX_BLOCKS", 100)
    empty = b"\x21\xfe\0" * 200
    message = "This GIF file has over 100 blocks of data or comments; allowed: 100. "
    assert unsupported(PLAIN[:COLOURS] + empty + PLAIN[COLOURS:]).startswith(message)
    assert decoded(PLAIN[:-1] + empty + b";").frame_count == 1  # behind the first frame it costs nothing
