import io
import zlib
from pathlib import Path

import pytest
from PIL import Image

from taskrobust.vision.data.base import open_image


def png_of_zeros(width: int, height: int) -> bytes:
    """A valid gray PNG, which is small as a file and large in memory."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    rows = zlib.compress(bytes((width + 1) * height), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_format_that_starts_other_programs_is_not_read_whatever_its_name(tmp_path: Path) -> None:
    eps = io.BytesIO()
    Image.new("RGB", (4, 4)).save(eps, "EPS")
    (tmp_path / "image.png").write_bytes(eps.getvalue())
    with Image.open(tmp_path / "image.png") as image:
        assert image.format == "EPS"
    with pytest.raises(OSError, match="cannot identify image file"):
        open_image(tmp_path / "image.png")


def test_an_image_that_would_fill_the_memory_is_not_decoded(tmp_path: Path) -> None:
    bomb = png_of_zeros(13_000, 6_000)
    assert len(bomb) < 100_000
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(OSError, match="it has 13000 x 6000 pixels, more than 67,108,864"):
        open_image(tmp_path / "bomb.png")


def test_images_of_other_programs_are_read(tmp_path: Path) -> None:
    for suffix in ("png", "jpg", "webp", "bmp", "tiff", "ppm"):
        Image.new("RGB", (4, 4), "red").save(tmp_path / f"image.{suffix}")
        with open_image(tmp_path / f"image.{suffix}") as image:
            image.load()
            assert image.size == (4, 4)
