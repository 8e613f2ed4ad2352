from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Write a file that is whole once it has its name, or keeps what it held before. Its folder is there.

    Raises:
        OSError: If it does not fit on the disk.
    """
    unfinished = path.with_name(f".{path.name}")
    unfinished.write_text(text)
    unfinished.replace(path)
