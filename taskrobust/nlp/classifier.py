"""A pre-trained model with a new head for classification or regression of sentences."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from taskrobust.nlp.hub import check_on_hub
from taskrobust.outputs import Outputs, TaskLosses


class SentenceClassifier(nn.Module):
    r"""Sums the cross-entropies of a batch, or the squared errors if the network has one output.

    .. math:: S = \sum_i -\log p_\theta(y_i \mid x_i) \qquad \text{or} \qquad S = \sum_i (f_\theta(x_i) - y_i)^2

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> config = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2)
        >>> model = SentenceClassifier(BertForSequenceClassification(config))
        >>> model(torch.tensor([[2, 5, 4, 3]]), labels=torch.tensor([1])).losses.counts
        tensor([1.])

    Args:
        network: A model of transformers that returns ``logits``.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        input_ids: Tensor,
        labels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Outputs:
        """Predict, and sum the losses.

        Args:
            input_ids: Pieces, int64 [B, S].
            labels: Class numbers, int64 [B], or scores, float32 [B]. Without labels the sum and the count are 0.
            attention_mask: 1 on pieces, 0 on padding, int64 [B, S]. None if there is no padding.
            token_type_ids: 0 in the first sentence, 1 in the second, int64 [B, S]. None for models that do not use
                them, or a single sentence.

        Returns:
            Float32 sum and count of the task, [1] each. The predictions are class numbers, int64 [B], or scores,
            float32 [B].
        """
        config = self.network.config
        if attention_mask is not None and config._attn_implementation == "sdpa" and config.model_type == "bert":
            # transformers uses a four-dimensional mask unchanged. For a two-dimensional one it asks the device whether
            # all entries are 1. Models with sliding windows derive a mask per kind of layer from the latter.
            attention_mask = attention_mask[:, None, None, :].bool()
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        logits = self.network(input_ids, attention_mask=attention_mask, **types).logits.float()
        is_score = logits.shape[1] == 1
        predictions = logits.squeeze(1) if is_score else logits.argmax(1)
        if labels is None:
            losses = logits.new_zeros(0)
        elif is_score:
            losses = (predictions - labels) ** 2
        else:
            losses = F.cross_entropy(logits, labels, reduction="none")
        task_losses = TaskLosses(losses.sum()[None], losses.new_full((1,), len(losses)))
        return Outputs(task_losses, predictions=predictions.detach())


def find_pretrained(model: str) -> str:
    """Find the folder of a model.

    Args:
        model: A run folder, the folder of a model, or a name on the hub, which is returned unchanged.

    Raises:
        ValueError: If there is no such folder, or it holds no model.
    """
    folder = Path(model).expanduser()
    if not folder.is_dir():
        if len(folder.parts) > 2 or (len(folder.parts) == 2 and folder.parent.is_dir()):  # as no name on the hub
            raise ValueError(
                f"Expected a run folder, a model's folder or a name on the hub, got {model}, which is no folder."
            )
        return model
    for candidate in (folder / "model", folder):
        if (candidate / "config.json").is_file():
            return str(candidate)
    raise ValueError(f"Expected a finished run or a model's folder, got {folder} with neither model/ nor config.json.")


def load_tokenizer(source: str) -> Any:
    """Load the tokenizer of a pre-trained model.

    Args:
        source: Folder of the model, or its name on the hub.

    Raises:
        ValueError: If there is no tokenizer.
    """
    check_on_hub(source)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Expected a run folder, a model's folder or a name on the hub with a tokenizer, got {source!r}: {error}"
        ) from error
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers returns an empty one
        raise ValueError(f"Expected the files of a tokenizer next to the model in {source}, got none.")
    return tokenizer


def load_network(source: str, labels: tuple[str, ...] | None) -> Any:
    """Load a pre-trained trunk with a new head, whose parameters are drawn from torch's generator.

    Args:
        source: Folder of the model, or its name on the hub.
        labels: Names of the classes. None gives the head a single output, for a score.

    Raises:
        ValueError: If there is no model, or its parameters do not match the trunk by name and shape.
    """
    names = dict(enumerate(labels or ("score",)))
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # the head is meant to be new
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
        raise ValueError(f"{expected}, got a model without {len(new)} of them, such as {new[0]}.")
    for name, there, here in sorted(loading["mismatched_keys"]):
        if name.startswith(trunk):
            raise ValueError(
                f"{expected}, got {name} of shape {list(there)} where its config.json expects {list(here)}."
            )
    return network
