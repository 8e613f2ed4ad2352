"""Generated rooms with exact depth and labels: data for tests, demos and experiments without a download."""

from taskrobust.vision.scenes.dataset import Scenes
from taskrobust.vision.scenes.labels import LABELS, OBJECTS, ROOMS
from taskrobust.vision.scenes.store import ScenesConfig, generate_scenes, prepare_scenes

__all__ = ["LABELS", "OBJECTS", "ROOMS", "Scenes", "ScenesConfig", "generate_scenes", "prepare_scenes"]
