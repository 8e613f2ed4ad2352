"""Names on the Hugging Face Hub."""

from pathlib import Path
from typing import Any

_FILES = ("config.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt")
_SECONDS = 10


def check_on_hub(name: Any) -> None:
    """Check that a model or a tokenizer is there, by one request.

    transformers asks for each of its files several times, which takes minutes where there is no network, and makes up
    an empty tokenizer in the end.

    Args:
        name: A name on the hub. A folder or a file is fine.

    Raises:
        ValueError: If there is none, or the hub cannot be reached and nothing of it was downloaded before.
    """
    if Path(name).exists():
        return
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    expected = f"Expected a folder or a name on the Hugging Face Hub, got {str(name)!r}"
    try:
        if any(isinstance(try_to_load_from_cache(str(name), file), str) for file in _FILES):
            return
        HfApi().model_info(str(name), timeout=_SECONDS)
    except HFValidationError as error:
        raise ValueError(f"{expected}, which is neither.") from error
    except Exception as error:  # of the network and of the hub
        reason = str(error).strip().split("\n")[0].rstrip(".")
        raise ValueError(f"{expected}: it is no folder, and the hub says: {reason}.") from error
