"""Renders a scene by ray casting: colors, depth and labels of every pixel."""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from taskrobust.synthetic.rooms.labels import LABELS
from taskrobust.synthetic.rooms.primitives import Array, Material, Primitive, meet, surface, turned
from taskrobust.synthetic.rooms.rooms import Camera, Scene
from taskrobust.synthetic.rooms.textures import SIDE, textures

_NUMBER: Final = {name: number for number, name in enumerate(LABELS)}
_NO_DEPTH: Final = [_NUMBER["window"], _NUMBER["mirror"]]
_NEAREST: Final = 0.05
_CORNERS: Final = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32).T

SMALLEST_DEPTH: Final = 0.3
LARGEST_DEPTH: Final = 10.0
"""Range of a depth camera, in meters."""


class Rendering(NamedTuple):
    """The maps of a scene, of S by S pixels.

    Attributes:
        rgb: Bytes [S, S, 3].
        depth: Millimetres along the camera's axis, [S, S]. 0, unknown, on windows and mirrors.
        semseg: Indices into LABELS, bytes [S, S].
    """

    rgb: NDArray[np.uint8]
    depth: NDArray[np.uint16]
    semseg: NDArray[np.uint8]


class _Pixels:
    """The nearest hit of each ray so far.

    A ray is the direction at which the depth along the camera's axis grows by one, so that its length is planar depth.
    """

    def __init__(self, rays: Array) -> None:
        shape = rays.shape[1:]
        self.rays = rays
        self.depth = np.empty(shape, np.float32)
        self.label = np.empty(shape, np.uint8)
        self.normal = np.empty((3, *shape), np.float32)
        self.u = np.empty(shape, np.float32)
        self.v = np.empty(shape, np.float32)
        self.texture = np.empty(shape, np.intp)
        self.scale = np.empty(shape, np.float32)
        self.color = np.empty((3, *shape), np.float32)
        self.glow = np.zeros(shape, np.float32)

    def paint(self, where: NDArray[np.bool_], material: Material) -> None:
        self.texture[where] = material.texture
        self.scale[where] = material.scale
        self.color[:, where] = material.color[:, None]


def render(scene: Scene, size: int, generator: np.random.Generator) -> Rendering:
    """Render.

    Args:
        scene: The scene.
        size: Side S of the picture in pixels.
        generator: Draws the sensor's noise.
    """
    to_room = _rotation(scene.camera)
    pixels = _Pixels(_rays(scene.camera, to_room, size))
    _meet_room(scene, pixels)
    for primitive in scene.primitives:
        _meet_primitive(primitive, scene.camera, to_room, pixels)
    millimeters = np.rint(np.clip(pixels.depth, SMALLEST_DEPTH, LARGEST_DEPTH) * 1000).astype(np.uint16)
    millimeters[np.isin(pixels.label, _NO_DEPTH)] = 0
    return Rendering(_shade(scene, pixels, generator), millimeters, pixels.label)


def _rotation(camera: Camera) -> Array:
    """From the camera's axes to the room's, [3, 3]."""
    cos_yaw, sin_yaw = np.cos(camera.yaw), np.sin(camera.yaw)
    cos_pitch, sin_pitch = np.cos(camera.pitch), np.sin(camera.pitch)
    yaw = np.array([[cos_yaw, 0, sin_yaw], [0, 1, 0], [-sin_yaw, 0, cos_yaw]])
    pitch = np.array([[1, 0, 0], [0, cos_pitch, sin_pitch], [0, -sin_pitch, cos_pitch]])
    rotation: Array = (yaw @ pitch).astype(np.float32)
    return rotation


def _rays(camera: Camera, to_room: Array, size: int) -> Array:
    """A ray through the center of every pixel, in the room's axes, [3, S, S]; no component is quite 0."""
    grid = (((np.arange(size) + 0.5) / size - 0.5) / camera.focal).astype(np.float32)
    across, down = np.meshgrid(grid, -grid)
    rays: Array = np.tensordot(to_room, np.stack([across, down, np.ones_like(across)]), 1)
    rays[np.abs(rays) < 1e-6] = 1e-6
    return rays


def _meet_room(scene: Scene, pixels: _Pixels) -> None:
    """Every ray ends at the floor, the ceiling or a wall, unless something is before it."""
    rays = pixels.rays
    inside = scene.camera.position - np.array([0, scene.half[1], 0], np.float32)
    sign = np.sign(rays)
    exits = (sign * scene.half[:, None, None] - inside[:, None, None]) / rays
    axis = exits.argmin(0)
    pixels.depth[:] = np.take_along_axis(exits, axis[None], 0)[0]
    pixels.normal[:] = -sign * (np.arange(3)[:, None, None] == axis)
    x, y, z = scene.camera.position[:, None, None] + pixels.depth * rays
    pixels.u[:] = np.where(axis == 0, z, x)
    pixels.v[:] = np.where(axis == 1, z, y)
    floor, ceiling = (axis == 1) & (rays[1] < 0), (axis == 1) & (rays[1] > 0)
    for name, where, material in (
        ("wall", axis != 1, scene.wall),
        ("floor", floor, scene.floor),
        ("ceiling", ceiling, scene.ceiling),
    ):
        pixels.label[where] = _NUMBER[name]
        pixels.paint(where, material)


def _meet_primitive(primitive: Primitive, camera: Camera, to_room: Array, pixels: _Pixels) -> None:
    window = _window(primitive, camera, to_room, pixels.rays.shape[1])
    if window is None:
        return
    down, across = window
    origin = turned(-primitive.yaw, camera.position - primitive.center)
    rays = turned(-primitive.yaw, pixels.rays[:, down, across])
    meeting = meet(primitive.shape, primitive.half, origin, rays)
    hit = meeting.hit & (meeting.near < pixels.depth[down, across])
    if not hit.any():
        return
    met = surface(primitive.shape, primitive.half, origin, rays, meeting, hit)
    rows, columns = np.nonzero(hit)
    rows, columns = rows + down.start, columns + across.start
    place = (rows, columns)
    pixels.depth[place] = meeting.near[hit]
    pixels.label[place] = primitive.label
    pixels.normal[:, rows, columns] = turned(primitive.yaw, met.normal)
    pixels.u[place], pixels.v[place] = met.u, met.v
    pixels.texture[place] = primitive.material.texture
    pixels.scale[place] = primitive.material.scale
    pixels.color[:, rows, columns] = primitive.material.color[:, None]
    pixels.glow[place] = primitive.glow


def _window(primitive: Primitive, camera: Camera, to_room: Array, size: int) -> tuple[slice, slice] | None:
    """Rows and columns of pixels that may show a primitive, None if there are none."""
    corners = turned(primitive.yaw, _CORNERS * primitive.half[:, None])
    corners += (primitive.center - camera.position)[:, None]
    x, y, ahead = to_room.T @ corners
    if (ahead < _NEAREST).all():
        return None
    if (ahead < _NEAREST).any():  # it reaches behind the camera
        return slice(0, size), slice(0, size)
    columns = (x / ahead * camera.focal + 0.5) * size
    rows = (0.5 - y / ahead * camera.focal) * size
    left, right = max(0, int(columns.min())), min(size, int(columns.max()) + 2)
    top, bottom = max(0, int(rows.min())), min(size, int(rows.max()) + 2)
    return None if left >= right or top >= bottom else (slice(top, bottom), slice(left, right))


def _shade(scene: Scene, pixels: _Pixels, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Diffuse light of one lamp and from everywhere, through a camera with white balance, gamma and noise."""
    row, column = ((along * pixels.scale * SIDE).astype(np.intp) % SIDE for along in (pixels.v, pixels.u))
    pattern = 0.45 + 0.55 * textures()[pixels.texture, row, column]
    points = scene.camera.position[:, None, None] + pixels.depth * pixels.rays
    to_lamp = scene.lamp[:, None, None] - points
    distance = (to_lamp * to_lamp).sum(0)  # squared
    facing = np.maximum((pixels.normal * to_lamp).sum(0), 0) / np.sqrt(distance)
    light = scene.ambient * (0.8 + 0.2 * pixels.normal[1]) + scene.power * facing / (3 + distance) + pixels.glow
    image = pixels.color * (pattern * light) * scene.white[:, None, None]
    image = np.clip(image, 0, 1) ** np.float32(scene.gamma)
    image += np.float32(scene.noise) * generator.standard_normal(image.shape, np.float32)
    rgb: NDArray[np.uint8] = (np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    return rgb
