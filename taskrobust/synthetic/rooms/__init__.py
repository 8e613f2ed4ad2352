"""Generated rooms with exact depth and labels: data for tests, demos and experiments without a download."""

from taskrobust.synthetic.rooms.labels import LABELS, OBJECTS, ROOMS
from taskrobust.synthetic.rooms.store import ScenesConfig, generate_scenes, prepare_scenes

__all__ = ["LABELS", "OBJECTS", "ROOMS", "ScenesConfig", "generate_scenes", "prepare_scenes"]
