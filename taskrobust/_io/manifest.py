"""Manifests of generated folders: their contents, their options, and whether they are complete."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taskrobust._io.atomic import write_atomically
from taskrobust._io.damage import damage_named
from taskrobust._io.settings import check_same_settings


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The JSON file that describes a folder of one kind.

    Args:
        file: Its name in the folder.
        kind: The contents of the folder, such as "shards".
        format: Number of the format, increased when this version cannot read what an earlier one wrote.
        command: The command that makes such a folder, completed by the name of the folder.
    """

    file: str
    kind: str
    format: int
    command: str

    def write(self, folder: Path, options: Mapping[str, Any], complete: bool, **content: Any) -> None:
        """Write the manifest.

        Args:
            folder: The folder.
            options: The options it is made with.
            complete: Whether it is complete.
            content: Its contents.
        """
        manifest = {"format": self.format, "complete": complete, "options": dict(options), **content}
        write_atomically(folder / self.file, json.dumps(manifest, indent=1) + "\n")

    def read(self, folder: Path) -> dict[str, Any]:
        """Read the manifest of a folder, complete or not.

        Raises:
            ValueError: If there is none, or it is damaged or of another format.
        """
        path = folder / self.file
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            reason = "the folder does not exist" if not folder.exists() else f"it holds no {self.file}"
            raise ValueError(
                f"Expected {self.kind} in {folder}, but {reason}. Use `taskrobust {self.command} {folder}`."
            ) from error
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}. {self._again}") from error
        if not isinstance(manifest, dict) or manifest.get("format") != self.format:
            got = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
            raise ValueError(f"Expected {self.kind} of format {self.format}, got {got} in {path}. {self._again}")
        if not isinstance(manifest.get("complete"), bool) or not isinstance(manifest.get("options"), dict):
            raise ValueError(f"{path} is damaged: it does not say with which options it was made. {self._again}")
        with damage_named(path, f"the shards of {self.kind}"):
            outside = [
                shard["file"] for shard in manifest.get("shards", ()) if Path(shard["file"]).name != shard["file"]
            ]
        if outside:
            raise ValueError(f"Expected names of files in {path}, got {outside[0]!r}, which is outside of the folder.")
        return manifest

    def read_complete(self, folder: Path) -> dict[str, Any]:
        """Read the manifest of a complete folder.

        Raises:
            ValueError: As ``read``, or if the folder is not complete.
        """
        manifest = self.read(folder)
        if not manifest["complete"]:
            raise ValueError(
                f"Expected {self.kind} in {folder}, got an unfinished folder. "
                f"`taskrobust {self.command} {folder}` with the same options resumes."
            )
        return manifest

    def is_complete(self, folder: Path) -> bool:
        """Whether a folder exists and is complete, including the files that ``shards`` of its manifest names."""
        if not (folder / self.file).exists():
            return False
        manifest = self.read(folder)
        return manifest["complete"] and all((folder / shard["file"]).exists() for shard in manifest.get("shards", ()))

    def is_started(self, folder: Path, options: Mapping[str, Any]) -> bool:
        """Whether a folder holds a manifest with the same options; a new or empty folder holds none.

        Raises:
            ValueError: If it was made with other options, or holds something else.
        """
        if (folder / self.file).exists():
            check_same_settings(folder, self.read(folder)["options"], options)
            return True
        if folder.exists() and (not folder.is_dir() or any(not path.name.startswith(".") for path in folder.iterdir())):
            raise ValueError(f"Expected a new or empty folder, or {self.kind}, got other files in {folder}.")
        return False

    @property
    def _again(self) -> str:
        return f"Make {self.kind} again in a new folder: `taskrobust {self.command} FOLDER`."
