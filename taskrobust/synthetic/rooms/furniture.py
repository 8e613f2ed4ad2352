"""Furniture: each piece consists of a few primitives."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from taskrobust.synthetic.rooms.labels import LABELS
from taskrobust.synthetic.rooms.primitives import Material, Primitive, Shape
from taskrobust.synthetic.rooms.textures import TEXTURES

_NUMBER: Final = {name: number for number, name in enumerate(LABELS)}

Size = Sequence[float]


class Builder:
    """Collects primitives.

    Args:
        generator: Draws sizes, colors and patterns.
        saturation: How far colors lie from gray: 1 as they are drawn, 0 gray.
    """

    def __init__(self, generator: np.random.Generator, saturation: float = 1.0) -> None:
        self.generator = generator
        self.saturation = saturation
        self.primitives: list[Primitive] = []
        self.position = (0.0, 0.0, 0.0)
        """x, z and yaw of the piece that is being placed."""
        self._material = self.material()

    def between(self, low: float, high: float) -> float:
        """A number at random."""
        return low + (high - low) * self.generator.random()

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.generator.random() < probability

    def material(self, color: Size | None = None, low: float = 0.2, high: float = 0.95) -> Material:
        """A pattern and, unless it is given, a color at random."""
        if color is None:
            drawn = low + (high - low) * self.generator.random(3)
            drawn = drawn.mean() + self.saturation * (drawn - drawn.mean())
        else:
            drawn = np.asarray(color)
        return Material(int(self.generator.integers(TEXTURES)), drawn.astype(np.float32), self.between(0.4, 2.5))

    def put(
        self,
        label: str,
        shape: Shape,
        center: Size,
        half: Size,
        yaw: float = 0.0,
        material: Material | None = None,
        glow: float = 0.0,
    ) -> None:
        """Add one primitive at a place in the room."""
        middle, sides = np.asarray(center, dtype=np.float32), np.asarray(half, dtype=np.float32)
        self.primitives.append(Primitive(shape, _NUMBER[label], middle, sides, yaw, material or self.material(), glow))

    def place(self, piece: str, x: float, z: float, yaw: float) -> None:
        """Put a piece of furniture on the floor at x and z, turned by ``yaw``."""
        self.position = (x, z, yaw)
        self._material = self.material()
        PIECES[piece](self)

    def part(self, label: str, shape: Shape, offset: Size, half: Size, same: bool = True) -> None:
        """Add a part of the piece, at an offset in its axes, of the piece's material or, if not ``same``, its own."""
        x, z, yaw = self.position
        cosine, sine = np.cos(yaw), np.sin(yaw)
        center = (x + cosine * offset[0] + sine * offset[2], offset[1], z - sine * offset[0] + cosine * offset[2])
        self.put(label, shape, center, half, yaw, self._material if same else None)

    def box(self, label: str, offset: Size, half: Size, same: bool = True) -> None:
        """Add a box."""
        self.part(label, Shape.BOX, offset, half, same)

    def round(self, label: str, offset: Size, half: Size, same: bool = True) -> None:
        """Add an ellipsoid."""
        self.part(label, Shape.ELLIPSOID, offset, half, same)

    def pillar(self, label: str, offset: Size, half: Size, same: bool = True) -> None:
        """Add a cylinder."""
        self.part(label, Shape.CYLINDER, offset, half, same)

    def legs(self, label: str, width: float, depth: float, height: float, thickness: float) -> None:
        """Add four legs under a top of the given half sizes."""
        for side in (-1, 1):
            for end in (-1, 1):
                offset = (side * (width - thickness), height / 2, end * (depth - thickness))
                self.box(label, offset, (thickness, height / 2, thickness))


def _bed(b: Builder) -> None:
    width, depth, height = b.between(0.45, 0.9), b.between(0.9, 1.05), b.between(0.2, 0.35)
    b.box("bed", (0, height, 0), (width, height, depth))
    b.box("bed", (0, height + 0.3, depth), (width, 0.45, 0.05), same=False)
    for _ in range(b.generator.integers(1, 3)):
        b.round("pillow", (b.between(-0.4, 0.4) * width, 2 * height + 0.08, depth - 0.3), (0.3, 0.1, 0.2), same=False)


def _table(b: Builder, label: str = "table") -> None:
    width, depth, height = b.between(0.35, 0.9), b.between(0.3, 0.55), b.between(0.4, 0.8)
    b.box(label, (0, height, 0), (width, 0.03, depth))
    b.legs(label, width, depth, height, 0.04)
    if label == "desk":
        b.box("desk", (width * 0.6, height / 2, 0), (width * 0.35, height / 2 - 0.05, depth * 0.9))
        b.box("screen", (0, height + 0.3, depth * 0.4), (0.3, 0.2, 0.02), same=False)
    things = (("books", Shape.BOX), ("ball", Shape.ELLIPSOID), ("lamp", Shape.CYLINDER))
    for _ in range(b.generator.integers(0, 4)):
        thing, shape = things[b.generator.integers(3)]
        offset = (b.between(-0.7, 0.7) * width, height + 0.12, b.between(-0.6, 0.6) * depth)
        b.part(thing, shape, offset, (b.between(0.05, 0.12), 0.09, b.between(0.05, 0.12)), same=False)


def _desk(b: Builder) -> None:
    _table(b, "desk")


def _chair(b: Builder) -> None:
    width, height = b.between(0.18, 0.26), b.between(0.38, 0.5)
    b.box("chair", (0, height, 0), (width, 0.03, width))
    b.legs("chair", width, width, height, 0.025)
    b.box("chair", (0, height + 0.3, width), (width, 0.28, 0.03))


def _sofa(b: Builder) -> None:
    width, depth, height = b.between(0.6, 1.1), 0.42, b.between(0.18, 0.24)
    b.box("sofa", (0, height, 0), (width, height, depth))
    b.box("sofa", (0, 2 * height + 0.2, depth - 0.1), (width, 0.25, 0.1))
    for side in (-1, 1):
        b.box("sofa", (side * width, height + 0.12, 0), (0.1, height + 0.1, depth))
    for _ in range(b.generator.integers(0, 3)):
        offset = (b.between(-0.7, 0.7) * width, 2 * height + 0.15, 0.15)
        b.round("pillow", offset, (0.2, 0.17, 0.1), same=False)


def _cabinet(b: Builder) -> None:
    height = b.between(0.35, 0.95)
    b.box("cabinet", (0, height, 0), (b.between(0.25, 0.6), height, b.between(0.2, 0.3)))


def _fridge(b: Builder) -> None:
    b.box("fridge", (0, 0.9, 0), (0.33, b.between(0.75, 0.9), 0.33))


def _shelf(b: Builder) -> None:
    width, height, depth = b.between(0.3, 0.6), b.between(0.6, 1.0), 0.16
    boards = int(b.generator.integers(3, 6))
    for board in range(boards):
        b.box("shelf", (0, 0.05 + 2 * height * board / (boards - 1), 0), (width, 0.02, depth))
    for side in (-1, 1):
        b.box("shelf", (side * width, height, 0), (0.02, height, depth))
    for board in range(boards - 1):
        for _ in range(b.generator.integers(0, 3)):
            thing = ("books", "books", "box")[b.generator.integers(3)]
            offset = (b.between(-0.7, 0.7) * width, 0.18 + 2 * height * board / (boards - 1), 0)
            b.box(thing, offset, (b.between(0.05, 0.2), 0.11, 0.11), same=False)


def _lamp(b: Builder) -> None:
    height = b.between(0.6, 0.9)
    b.pillar("lamp", (0, height, 0), (0.03, height, 0.03))
    b.round("lamp", (0, 2 * height, 0), (0.18, 0.14, 0.18), same=False)


def _plant(b: Builder) -> None:
    b.pillar("plant", (0, 0.2, 0), (0.17, 0.2, 0.17))
    x, z, _ = b.position
    green = b.material((b.between(0.05, 0.4), b.between(0.4, 0.8), b.between(0.05, 0.3)))
    for leaf in range(b.generator.integers(1, 4)):
        center = (x + b.between(-0.15, 0.15), 0.6 + 0.25 * leaf, z + b.between(-0.15, 0.15))
        half = (b.between(0.15, 0.35), b.between(0.15, 0.3), b.between(0.15, 0.35))
        b.put("plant", Shape.ELLIPSOID, center, half, material=green)


def _counter(b: Builder) -> None:
    width = b.between(0.7, 1.4)
    b.box("counter", (0, 0.42, 0), (width, 0.42, 0.3))
    b.box("counter", (0, 0.87, 0), (width + 0.03, 0.03, 0.33), same=False)
    if b.chance(0.7):
        b.round("sink", (b.between(-0.5, 0.5) * width, 0.9, 0), (0.25, 0.05, 0.2), same=False)


def _toilet(b: Builder) -> None:
    b.pillar("toilet", (0, 0.2, 0), (0.18, 0.2, 0.18))
    b.box("toilet", (0, 0.5, 0.22), (0.2, 0.3, 0.09))


def _bathtub(b: Builder) -> None:
    b.box("bathtub", (0, 0.27, 0), (0.4, 0.27, 0.8))
    b.box("bathtub", (0, 0.55, 0), (0.42, 0.03, 0.82), same=False)


def _boxes(b: Builder) -> None:
    bottom = 0.0
    for _ in range(b.generator.integers(1, 4)):
        height = b.between(0.1, 0.28)
        offset = (b.between(-0.06, 0.06), bottom + height, b.between(-0.06, 0.06))
        b.box("box", offset, (b.between(0.15, 0.35), height, b.between(0.15, 0.35)), same=False)
        bottom += 2 * height


def _ball(b: Builder) -> None:
    radius = b.between(0.1, 0.35)
    b.round("ball", (0, radius, 0), (radius, radius, radius))


def _column(b: Builder) -> None:
    radius = b.between(0.1, 0.22)
    b.pillar("column", (0, 1.7, 0), (radius, 1.7, radius))


def _bag(b: Builder) -> None:
    b.round("bag", (0, 0.22, 0), (0.2, 0.24, 0.14))


def _bin(b: Builder) -> None:
    b.pillar("bin", (0, 0.25, 0), (0.16, 0.25, 0.16))


def _rug(b: Builder) -> None:
    b.box("rug", (0, 0.006, 0), (b.between(0.5, 1.3), 0.006, b.between(0.4, 1.0)))


PIECES: Final[dict[str, Callable[[Builder], None]]] = {
    "bed": _bed,
    "table": _table,
    "desk": _desk,
    "chair": _chair,
    "sofa": _sofa,
    "cabinet": _cabinet,
    "fridge": _fridge,
    "shelf": _shelf,
    "lamp": _lamp,
    "plant": _plant,
    "counter": _counter,
    "toilet": _toilet,
    "bathtub": _bathtub,
    "box": _boxes,
    "ball": _ball,
    "column": _column,
    "bag": _bag,
    "bin": _bin,
    "rug": _rug,
}
"""How each piece of furniture is put together; it faces the camera's side, -z, until it is turned."""
