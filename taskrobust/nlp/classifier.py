"""A pre-trained model with a new head for a classification or a regression of sentences."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from taskrobust.outputs import Outputs, TaskLosses


class SentenceClassifier(nn.Module):
    r"""Sums the cross-entropies of a batch, or the squared errors where the network has one output.

    .. math:: S = \sum_i -\log p_\theta(y_i \mid x_i) \qquad \text{or} \qquad S = \sum_i (f_\theta(x_i) - y_i)^2

    Args:
        network: A model of transformers that returns ``logits``.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, token_type_ids: Tensor | None = None
    ) -> Outputs:
        """Predicts, and sums the losses.

        Args:
            input_ids: Pieces, int64 [B, S].
            attention_mask: 1 on pieces, 0 on padding, int64 [B, S].
            labels: Class numbers, int64 [B], or scores, float32 [B].
            token_type_ids: 0 in the first sentence, 1 in the second, int64 [B, S]; for models that know them.

        Returns:
            Float32 sum and count of the one task, [1] each; as predictions class numbers, int64, or scores, float32,
            [B].
        """
        config = self.network.config
        if config._attn_implementation == "sdpa" and config.model_type == "bert":
            # In four dimensions transformers takes the mask as it is; in two it asks the device whether all are ones.
            # Models whose layers see windows make one mask for each kind of layer of it, so theirs stays as it is.
            attention_mask = attention_mask[:, None, None, :].bool()
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits = self.network(input_ids, attention_mask=attention_mask, **types).logits.float()
        if logits.shape[1] == 1:
            predictions = logits.squeeze(1)
            losses = (predictions - labels) ** 2
        else:
            predictions = logits.argmax(1)
            losses = F.cross_entropy(logits, labels, reduction="none")
        return Outputs(
            TaskLosses(losses.sum()[None], losses.new_full((1,), len(labels))), predictions=predictions.detach()
        )


def find_pretrained(model: str) -> str:
    """The model's folder, given its run folder or the folder itself, or a name on the hub as it is.

    Raises:
        ValueError: If there is no such folder, or it holds no model.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if len(folder.parts) > 2 or (len(folder.parts) == 2 and folder.parent.is_dir()):  # as no name on the hub
            raise ValueError(f"Expected a run folder, a model's folder or a name on the hub, {model} is no folder.")
        return model
    for candidate in (folder / "model", folder):
        if (candidate / "config.json").is_file():
            return str(candidate)
    raise ValueError(f"Expected a finished run or a model's folder, {folder} holds neither model/ nor config.json.")


def load_tokenizer(source: str) -> Any:
    """The tokenizer of a pre-trained model.

    Args:
        source: Folder of the model, or its name on the hub.

    Raises:
        ValueError: If there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a run folder, a model's folder or a name on the hub with a tokenizer, got {source!r}: {error}"
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes an empty one up
        raise ValueError(f"Expected the files of a tokenizer beside the model in {source}, there are none.")
    return tokenizer


def load_network(source: str, labels: tuple[str, ...] | None) -> Any:
    """A pre-trained trunk with a head whose new parameters are drawn from torch's generator.

    Args:
        source: Folder of the model, or its name on the hub.
        labels: Names of the classes. None makes a head of one output, for a score.

    Raises:
        ValueError: If there is no model, or its parameters are not those of the trunk, by name and shape.
    """
    names = dict(enumerate(labels or ("score",)))
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # that the head is new is meant
    transformers_logging.disable_progress_bar()
    try:
        network, loading = AutoModelForSequenceClassification.from_pretrained(
            source,
            num_labels=len(names),
            id2label=names,
            label2id={name: number for number, name in names.items()},
            ignore_mismatched_sizes=True,  # a head for other classes is replaced
            output_loading_info=True,
            dtype=torch.float32,
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a run folder, a model's folder or a name on the hub, got {source!r}: {error}"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)
    trunk = f"{network.base_model_prefix}."
    expected = f"Expected the parameters of a {type(network.base_model).__name__} in {source}"
    new = sorted(name for name in loading["missing_keys"] if name.startswith(trunk) and ".pooler." not in name)
    if new:
        raise ValueError(f"{expected}, {len(new)} are missing, such as {new[0]}.")
    for name, there, here in sorted(loading["mismatched_keys"]):
        if name.startswith(trunk):
            raise ValueError(f"{expected}, got {name} of shape {list(there)} where its config.json wants {list(here)}.")
    return network
