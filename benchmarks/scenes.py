"""Times the generator of rooms: images a second of one core, at several sizes.

Run: ``python benchmarks/scenes.py --images 200``
"""

import argparse
import time

import numpy as np

from taskrobust.synthetic.rooms.render import render
from taskrobust.synthetic.rooms.rooms import generator_of, make_scene


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 128, 224])
    arguments = parser.parse_args()
    print("| side | room, ms | picture, ms | images/s a core |\n|---|---:|---:|---:|")
    for size in arguments.sizes:
        room, picture = np.median([times(index, size) for index in range(arguments.images)], axis=0)
        print(f"| {size} | {room * 1e3:.2f} | {picture * 1e3:.2f} | {1 / (room + picture):.0f} |")


def times(index: int, size: int) -> tuple[float, float]:
    """Seconds of process time for the room and for its picture."""
    start = time.process_time()
    generator = generator_of("train", index)
    scene = make_scene(generator)
    middle = time.process_time()
    render(scene, size, generator)
    return middle - start, time.process_time() - middle


if __name__ == "__main__":
    main()
