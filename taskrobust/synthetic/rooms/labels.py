from typing import Final

LABELS: Final = (
    *("wall", "floor", "ceiling", "door", "window", "rug", "painting", "curtain", "bed", "pillow", "chair", "sofa"),
    *("table", "desk", "cabinet", "shelf", "books", "lamp", "box", "plant", "screen", "counter", "sink", "toilet"),
    *("bathtub", "mirror", "ball", "column", "bag", "fridge", "whiteboard", "bin"),
)
"""Labels of pixels; a semantic map holds indices into this tuple."""

OBJECTS: Final = (
    *("bed", "table", "chair", "sofa", "cabinet", "shelf", "lamp", "plant", "desk", "counter", "toilet", "bathtub"),
    *("box", "ball", "column", "bag"),
)
"""Classes of images: the object that the camera looks at."""

ROOMS: Final = (
    *("bedroom", "living room", "dining room", "kitchen", "office", "bathroom", "storage", "classroom", "gallery"),
    "playroom",
)
"""Kinds of rooms, which differ in what stands in them."""
