"""Boxes, ellipsoids and cylinders, and where rays meet them."""

from enum import Enum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
"""Numbers in single precision."""

_SMALL = 1e-7


class Shape(Enum):
    """The shape of a primitive; ellipsoids and cylinders are aligned with the y axis."""

    BOX = "box"
    ELLIPSOID = "ellipsoid"
    CYLINDER = "cylinder"


class Material(NamedTuple):
    """How a surface looks.

    Attributes:
        texture: Number of its pattern.
        color: Red, green and blue.
        scale: Repetitions of the pattern in a meter.
    """

    texture: int
    color: Array
    scale: float


class Primitive(NamedTuple):
    """A body in the room, in meters; x is to the right, y up, z ahead.

    Attributes:
        shape: Its shape.
        label: Index of what it belongs to.
        center: Its middle, [3].
        half: Half of its sizes along its own axes, [3].
        yaw: Angle by which it is turned about the vertical.
        material: Its surface.
        glow: Light that it gives off.
    """

    shape: Shape
    label: int
    center: Array
    half: Array
    yaw: float
    material: Material
    glow: float = 0.0


class Surface(NamedTuple):
    """Where rays meet a primitive, in its own axes, for N rays.

    Attributes:
        normal: Outward unit normals, [3, N].
        u: Meters along the surface, [N].
        v: Meters up the surface, [N].
    """

    normal: Array
    u: Array
    v: Array


class Meeting(NamedTuple):
    """Rays that meet a primitive.

    Attributes:
        near: Length of each ray up to where it enters, [H, W].
        hit: Whether it does, in front of the camera, bool [H, W].
        faces: For a box where it enters each pair of faces, [3, H, W]; for a cylinder where it enters the caps, [H, W].
    """

    near: Array
    hit: NDArray[np.bool_]
    faces: Array | None


def meet(shape: Shape, half: Array, origin: Array, rays: Array) -> Meeting:
    """Closed form for rays [3, H, W] from ``origin`` [3], both in the primitive's own axes."""
    if shape is Shape.BOX:
        inverse = 1 / (rays + _SMALL)
        middle = -origin[:, None, None] * inverse
        reach = half[:, None, None] * np.abs(inverse)
        faces = middle - reach
        near, far = faces.max(0), (middle + reach).min(0)
        return Meeting(near, (near < far) & (near > 0.05), faces)
    # In units of the half axes an ellipsoid is a ball, the mantle of a cylinder a circle.
    axes = [0, 1, 2] if shape is Shape.ELLIPSOID else [0, 2]
    scaled, start = rays[axes] / half[axes, None, None], origin[axes] / half[axes]
    a = (scaled * scaled).sum(0)
    b = (start[:, None, None] * scaled).sum(0)
    inside = b * b - a * (start @ start - 1)
    root = np.sqrt(np.maximum(inside, 0))
    near, far = (-b - root) / a, (-b + root) / a
    caps = None
    if shape is Shape.CYLINDER:
        inverse = 1 / (rays[1] + _SMALL)
        reach = half[1] * np.abs(inverse)
        caps = -origin[1] * inverse - reach
        near, far = np.maximum(near, caps), np.minimum(far, -origin[1] * inverse + reach)
    return Meeting(near, (inside > 0) & (near < far) & (near > 0.05), caps)


def surface(shape: Shape, half: Array, origin: Array, rays: Array, meeting: Meeting, hit: NDArray[np.bool_]) -> Surface:
    """The surface at the rays of ``hit``, bool [H, W], which is within that of ``meeting``."""
    directions = rays[:, hit]
    near = meeting.near[hit]
    x, y, z = points = origin[:, None] + near * directions
    if shape is Shape.BOX:
        assert meeting.faces is not None
        axis = meeting.faces[:, hit].argmax(0)
        rows = np.arange(len(axis))
        normal = np.zeros_like(points)
        normal[axis, rows] = -np.sign(directions[axis, rows])
        return Surface(normal, np.where(axis == 0, z, x), np.where(axis == 1, z, y))
    normal = points / half[:, None] ** 2
    if shape is Shape.CYLINDER:
        assert meeting.faces is not None
        normal[1] = 0
        on_cap = meeting.faces[hit] >= near
        normal[:, on_cap] = 0
        normal[1, on_cap] = -np.sign(directions[1, on_cap])
    normal /= np.sqrt((normal * normal).sum(0)) + _SMALL
    return Surface(normal, np.arctan2(x, z) * half[0], y)


def turned(yaw: float, vectors: Array) -> Array:
    """Vectors [3, ...] turned about the vertical by ``yaw``; by its negative they come back."""
    cosine, sine = np.float32(np.cos(yaw)), np.float32(np.sin(yaw))
    x, y, z = vectors
    return np.stack([cosine * x + sine * z, y, cosine * z - sine * x])
