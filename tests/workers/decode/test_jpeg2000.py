import pytest

from tests.workers.decode.checks import decoded, unsupported
from tests.workers.image_files import encode, picture
from workers.decode import jpeg2000

PLAIN = encode(picture(), "JPEG2000")


def test_many_code_blocks_are_refused_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    assert decoded(PLAIN).width == 83
    monkeypatch.setattr(jpeg2000, "MAX_BLOCKS", 500)
    assert decoded(PLAIN).width == 83
    tiny = bytearray(PLAIN)
    style = tiny.index(b"\xff\x52")
    tiny[style + 10 : style + 12] = b"\0\0"  # 4 x 4
    assert "code blocks and packets; allowed: 500." in unsupported(bytes(tiny))
    layers = bytearray(PLAIN)
    layers[style + 6 : style + 8] = b"\xff\xff"
    assert "code blocks and packets; allowed: 500." in unsupported(bytes(layers))
