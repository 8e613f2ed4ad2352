"""A room at random: its size and surfaces, what stands in it and hangs on its walls, the camera and the light."""

from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskrobust.synthetic.rooms.furniture import Builder
from taskrobust.synthetic.rooms.labels import OBJECTS, ROOMS
from taskrobust.synthetic.rooms.primitives import Array, Material, Primitive, Shape

Split = Literal["train", "val", "test"]
Domain = Literal["source", "shifted"]


class Ranges(NamedTuple):
    """How rooms and cameras of a domain vary, smallest and largest each.

    Attributes:
        half_width: Half of a room's width in meters.
        half_depth: Half of its depth.
        height: Its height.
        view: Field of view in degrees.
        eye: Height of the camera in meters.
        ambient: Light from everywhere.
        power: Light of the lamp.
        white: Gain of each color channel.
        gamma: Exponent of the camera.
        noise: Deviation of the sensor's noise.
        saturation: How far colors lie from gray.
    """

    half_width: tuple[float, float]
    half_depth: tuple[float, float]
    height: tuple[float, float]
    view: tuple[float, float]
    eye: tuple[float, float]
    ambient: tuple[float, float]
    power: tuple[float, float]
    white: tuple[float, float]
    gamma: tuple[float, float]
    noise: float
    saturation: float


DOMAINS: Final[dict[str, Ranges]] = {
    "source": Ranges(
        half_width=(1.6, 3.6),
        half_depth=(1.8, 4.6),
        height=(2.2, 3.4),
        view=(48, 78),
        eye=(0.9, 1.8),
        ambient=(0.25, 0.5),
        power=(3, 9),
        white=(0.85, 1.15),
        gamma=(0.7, 1.1),
        noise=0.02,
        saturation=1.0,
    ),
    # Larger rooms, a wider and higher view, dim and colored light, paler things, a noisier sensor.
    "shifted": Ranges(
        half_width=(2.6, 4.8),
        half_depth=(2.8, 5.6),
        height=(2.6, 4.0),
        view=(66, 92),
        eye=(1.3, 2.1),
        ambient=(0.15, 0.35),
        power=(2, 6),
        white=(0.7, 1.3),
        gamma=(0.9, 1.4),
        noise=0.04,
        saturation=0.6,
    ),
}
"""The domain of pre-training, and a shifted one that measures transfer."""

_SPLITS: Final = {"train": 0, "val": 1, "test": 2}

_TYPICAL: Final = {
    "bedroom": ("bed", "bed", "cabinet"),
    "living room": ("sofa", "sofa", "table"),
    "dining room": ("table", "chair", "chair", "chair"),
    "kitchen": ("counter", "counter", "fridge"),
    "office": ("desk", "chair", "shelf"),
    "bathroom": ("toilet", "bathtub", "counter"),
    "storage": ("box", "box", "box", "shelf"),
    "classroom": ("desk", "desk", "desk", "chair", "chair"),
    "gallery": ("column", "column", "plant"),
    "playroom": ("ball", "ball", "bag", "box"),
}
_ANYWHERE: Final = (
    *("chair", "table", "cabinet", "lamp", "plant", "box", "bag", "bin", "shelf", "rug", "sofa", "desk", "ball"),
    "column",
)
_ODDS: Final = 1 / np.arange(1, len(_ANYWHERE) + 1) ** 0.7

_TRIES: Final = 8
_CLEARANCE: Final = 0.45
_WINDOW: Final = (1.1, 1.2, 1.3)


class Camera(NamedTuple):
    """A pinhole camera.

    Attributes:
        position: In meters, [3].
        yaw: Angle to the right in radians.
        pitch: Angle upward.
        focal: Focal length in widths of the image.
    """

    position: Array
    yaw: float
    pitch: float
    focal: float


class Scene(NamedTuple):
    """All that a picture is computed from.

    Attributes:
        half: Half sizes of the room, [3].
        floor: Its floor.
        ceiling: Its ceiling.
        wall: Its walls.
        primitives: The objects in it.
        camera: Where it is seen from.
        lamp: Place of the light, [3].
        ambient: Light from everywhere.
        power: Light of the lamp.
        white: Gain of each color channel, [3].
        gamma: Exponent of the camera.
        noise: Deviation of the sensor's noise.
        label: Index into OBJECTS of what the camera looks at.
        room: Index into ROOMS.
    """

    half: Array
    floor: Material
    ceiling: Material
    wall: Material
    primitives: list[Primitive]
    camera: Camera
    lamp: Array
    ambient: float
    power: float
    white: NDArray[np.float32]
    gamma: float
    noise: float
    label: int
    room: int


def generator_of(split: Split, index: int, domain: Domain = "source", seed: int = 0) -> np.random.Generator:
    """The random numbers of one scene. No two scenes of any splits, domains or seeds share a stream."""
    return np.random.default_rng([seed, list(DOMAINS).index(domain), _SPLITS[split], index])


def make_scene(generator: np.random.Generator, domain: Domain = "source") -> Scene:
    """A scene at random, in which the camera looks at one object among others."""
    ranges = DOMAINS[domain]
    build = Builder(generator, ranges.saturation)
    half = np.array([build.between(*ranges.half_width), 0.0, build.between(*ranges.half_depth)], np.float32)
    half[1] = build.between(*ranges.height) / 2
    room, label = int(generator.integers(len(ROOMS))), int(generator.integers(len(OBJECTS)))
    camera, taken = _look_at(build, OBJECTS[label], half, ranges)
    _furnish(build, ROOMS[room], half, taken)
    _hang(build, ROOMS[room], half)
    return Scene(
        half=half,
        floor=build.material(low=0.35),
        ceiling=build.material(low=0.5),
        wall=build.material(low=0.35),
        primitives=build.primitives,
        camera=camera,
        lamp=np.array(
            [
                build.between(-0.7, 0.7) * half[0],
                2 * half[1] - build.between(0.1, 0.6),
                build.between(-0.6, 0.6) * half[2],
            ],
            np.float32,
        ),
        ambient=build.between(*ranges.ambient),
        power=build.between(*ranges.power),
        white=generator.uniform(*ranges.white, 3).astype(np.float32),
        gamma=build.between(*ranges.gamma),
        noise=ranges.noise,
        label=label,
        room=room,
    )


Disc = tuple[float, float, float]
"""Part of the floor that is taken: x, z and radius."""


def _look_at(build: Builder, piece: str, half: Array, ranges: Ranges) -> tuple[Camera, list[Disc]]:
    """Places the camera at the front of the room, and the object that it looks at a few meters ahead."""
    width, _, depth = (float(side) for side in half)
    x, eye, z = build.between(-0.5, 0.5) * width, build.between(*ranges.eye), -depth + build.between(0.15, 0.6)
    distance, yaw = build.between(1.3, 2.9), build.between(-0.3, 0.3)
    direction = yaw + build.between(-0.22, 0.22)
    to_x = min(max(x + distance * np.sin(direction), -width + 0.5), width - 0.5)
    to_z = min(z + distance * np.cos(direction), depth - 0.5)
    build.place(piece, to_x, to_z, build.between(0, 2 * np.pi))
    pitch = -float(np.arctan2(eye - build.between(0.3, 0.8), distance)) * build.between(0.6, 1.1)
    focal = 0.5 / float(np.tan(np.radians(build.between(*ranges.view)) / 2))
    view = [(x + share * (to_x - x), z + share * (to_z - z), 0.35) for share in (0.35, 0.7)]
    camera = Camera(np.array([x, eye, z], np.float32), yaw, pitch, focal)
    return camera, [(x, z, 0.6), (to_x, to_z, 0.7), *view]


def _furnish(build: Builder, room: str, half: Array, taken: list[Disc]) -> None:
    """Places furniture where the floor is free: against the far wall, a side wall, or anywhere."""
    width, _, depth = (float(side) for side in half)
    typical = [piece for piece in _TYPICAL[room] if build.chance(0.85)] or [_TYPICAL[room][0]]
    others = build.generator.choice(len(_ANYWHERE), build.generator.integers(2, 8), p=_ODDS / _ODDS.sum())
    for piece in [*typical, *(_ANYWHERE[number] for number in others)]:
        for _ in range(_TRIES):
            x, z = build.between(-width + 0.5, width - 0.5), build.between(-depth + 1.2, depth - 0.4)
            yaw = build.between(0, 2 * np.pi)
            if build.chance(0.5):
                z, yaw = depth - build.between(0.35, 0.6), build.between(-0.1, 0.1)
            elif build.chance(0.5):
                side = 1 if build.chance(0.5) else -1
                x, yaw = side * (width - build.between(0.35, 0.6)), side * np.pi / 2 + build.between(-0.1, 0.1)
            free = all((x - a) ** 2 + (z - b) ** 2 > (radius + _CLEARANCE) ** 2 for a, b, radius in taken)
            if piece == "rug" or free:
                build.place(piece, x, z, yaw)
                taken.append((x, z, _CLEARANCE))
                break


def _hang(build: Builder, room: str, half: Array) -> None:
    """Puts doors, windows, pictures and the like on the walls that the camera can see."""
    width, _, depth = (float(side) for side in half)
    probabilities = (
        *(("door", 0.6), ("window", 0.7), ("painting", 0.8), ("painting", 0.4), ("curtain", 0.35), ("mirror", 0.25)),
        ("whiteboard", 0.9 if room == "classroom" else 0.1),
        ("painting", 0.9 if room == "gallery" else 0.0),
    )
    for item, probability in probabilities:
        if not build.chance(probability):
            continue
        across, up, middle = _size_on_wall(build, item)
        window = item == "window"
        material, glow = build.material(_WINDOW if window else None), 0.6 if window else 0.0
        wall = int(build.generator.integers(3))
        if wall == 0:  # the far one
            x = build.between(-width + across, width - across) if width > across else 0.0
            build.put(item, Shape.BOX, (x, middle, depth), (across, up, 0.03), material=material, glow=glow)
        else:
            x = width if wall == 1 else -width
            z = build.between(-depth / 3, depth - across)
            build.put(item, Shape.BOX, (x, middle, z), (0.03, up, across), material=material, glow=glow)


def _size_on_wall(build: Builder, item: str) -> tuple[float, float, float]:
    """Half width, half height and height of the middle, in meters."""
    match item:
        case "door":
            return 0.45, 1.02, 1.02
        case "window":
            return build.between(0.4, 0.9), build.between(0.4, 0.7), 1.5
        case "painting":
            return build.between(0.15, 0.6), build.between(0.15, 0.5), build.between(1.3, 1.8)
        case "curtain":
            return build.between(0.2, 0.5), 1.1, 1.2
        case "mirror":
            return build.between(0.2, 0.4), build.between(0.3, 0.6), 1.4
        case _:  # whiteboard
            return build.between(0.6, 1.2), 0.5, 1.5
