from taskrobust.synthetic.rooms.store import generate_scenes as scenes

__all__ = ["scenes"]
