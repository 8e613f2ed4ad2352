"""PoS-BERT: BERT for pre-training with one masked language modeling task per part-of-speech class."""

from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import BertConfig, BertForPreTraining
from transformers.models.bert.modeling_bert import BertLayer

from taskrobust.nlp.attention import UNPADDED
from taskrobust.nlp.decomposition import decompose
from taskrobust.nlp.tagging.tagset import CLASSES, OUTSIDE
from taskrobust.outputs import DisjointRows, Outputs, TaskLosses

TASKS: Final = (*CLASSES, "nsp")
"""The pre-training tasks: one per class of masked words, and next sentence prediction."""

WITHIN_CLASS_TASKS: Final = (*CLASSES, "class", "nsp")
"""The same with the risks of words given their class, and the risk of the classes of all masked words."""


class _LastLayer(BertLayer):  # type: ignore[misc]
    """Computes only the tokens that are read after the attention: [1, R, H] instead of [B, S, H]."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        *arguments: Any,
        read: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if read is None:
            whole: Tensor = super().forward(hidden_states, attention_mask, *arguments, **kwargs)
            return whole
        attended, _ = self.attention.self(hidden_states, attention_mask=attention_mask, **kwargs)
        attended, residual = (values.flatten(0, 1).index_select(0, read)[None] for values in (attended, hidden_states))
        rows: Tensor = self.feed_forward_chunk(self.attention.output(attended, residual))
        return rows


class PosBertForPreTraining(BertForPreTraining):  # type: ignore[misc]
    r"""BERT that returns the summed losses of each class of masked words and of next sentence prediction.

    .. math:: S_t = \sum_{i:\, c_i = t} -\log p_\theta(y_i \mid \tilde x), \qquad n_t = |\{i : c_i = t\}|

    The trunk runs once. After its last attention, only the tokens that a head reads are computed, which are the masked
    ones and the first of each sequence. The result is the same. Parameters and their names are those of
    ``BertForPreTraining``, so every BERT class of transformers loads what ``save_pretrained`` writes.

    Example:
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
        >>> config = BertConfig(vocab_size=9, **sizes)
        >>> outputs = PosBertForPreTraining(config)(
        ...     input_ids=torch.tensor([[2, 5, 4, 3]]),
        ...     masked_positions=torch.tensor([2]),
        ...     labels=torch.tensor([7]),
        ...     classes=torch.tensor([CLASSES.index("noun")]),
        ... )
        >>> dict(zip(TASKS, outputs.losses.counts.int().tolist()))["noun"]
        1

    Args:
        config: The architecture.

    References:
        Wang et al., Task-Robust Pre-Training for Worst-Case Downstream Adaptation, NeurIPS 2023, section 4.1.
        Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers, NAACL 2019.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config)
        self.bert.encoder.layer[-1].__class__ = _LastLayer  # the same parameters, initialized alike
        self.within_class = False
        self.register_buffer("class_distribution", None)

    def set_class_distribution(self, distribution: Tensor, within_class: bool = False) -> None:
        """Set the probability of each class given the piece, which divides the losses into parts.

        Held-out losses are reported in parts: in evaluation mode, ``predictions`` are the sums of the raw losses, of
        those of the class and of those within the class, and the counts, [4, 9].

        Args:
            distribution: From ``class_distribution``, float32 [V, 10].
            within_class: Whether the nine tasks are the losses within the classes. The losses of the classes are a task
                of their own then, see ``WITHIN_CLASS_TASKS``.
        """
        self.register_buffer("class_distribution", distribution.to(self.device), persistent=False)
        self.within_class = within_class

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return WITHIN_CLASS_TASKS if self.within_class else TASKS

    def forward(
        self,
        input_ids: Tensor,
        masked_positions: Tensor,
        labels: Tensor,
        classes: Tensor,
        next_sentence_label: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
    ) -> Outputs:
        """Sum the element losses of each task.

        Args:
            input_ids: Masked pieces, int64 [B, S], or [1, N] for an unpadded batch of N tokens.
            masked_positions: Where to predict, as indices into the flattened ``input_ids``, int64 [M].
            labels: The original pieces at the masked positions, int64 [M].
            classes: Their classes as indices into ``CLASSES``, int64 [M]. Rows of class ``OUTSIDE`` count nowhere.
            next_sentence_label: 0 if segment B continues A, 1 if it is from another document, int64 [B]. None leaves
                next sentence prediction out.
            token_type_ids: 0 in segment A, 1 in segment B, same shape as ``input_ids``. None for a single segment.
            attention_mask: 1 on pieces, 0 on padding, [B, S]. None if there is no padding.
            position_ids: Position of each piece in its sequence, [1, N]. Required for an unpadded batch only.
            cu_seqlens: Start of each sequence, then N, int32 [B + 1]. Required for an unpadded batch only.

        Returns:
            Float32 sums and counts in the order of ``tasks``, [10] or [11] each. ``shared`` is the output of the trunk
            at the masked positions and the first tokens, [M + B, H], each row of which is read by the head of one task.

        Raises:
            ValueError: If the batch is unpadded and the attention would mix its sequences.
        """
        attention = self.config._attn_implementation
        if cu_seqlens is not None and attention != UNPADDED:
            raise ValueError(
                f"Expected the attention {UNPADDED!r} for a batch with cu_seqlens, got {attention!r}. "
                f"Call model.set_attn_implementation({UNPADDED!r})."
            )
        if attention_mask is not None and attention in ("sdpa", UNPADDED):
            # transformers uses a four-dimensional mask unchanged. For a two-dimensional one it asks the device whether
            # all entries are 1.
            attention_mask = attention_mask[:, None, None, :].bool()
        first_tokens = _first_tokens(input_ids) if cu_seqlens is None else cu_seqlens[:-1]
        rows = self.bert(
            input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            read=torch.cat([masked_positions, first_tokens]),
            **({} if cu_seqlens is None else {"cu_seqlens": cu_seqlens}),
        ).last_hidden_state[0]
        masked, first = rows.split([len(masked_positions), len(first_tokens)])
        # Within the trunk, the pooler would read the first token of each row instead of each sequence.
        word_scores, next_scores = self.cls(masked, self.bert.pooler(first[:, None]))
        nsp = len(self.tasks) - 1
        if next_sentence_label is None:
            next_sentence_label, nsp = labels.new_zeros(len(first_tokens)), len(self.tasks)
        words = self._owners(classes)
        following = torch.full_like(next_sentence_label, nsp)
        if self.within_class:
            losses, owners = [*decompose(word_scores, labels, classes, self.class_distribution)], [words, _pool(words)]
        else:
            losses, owners = [_cross_entropy(word_scores, labels)], [words]
        losses.append(_cross_entropy(next_scores, next_sentence_label))
        every, owner = torch.cat(losses), torch.cat([*owners, following])
        sums, counts = (_sum_by_task(values, owner, len(self.tasks)) for values in (every, torch.ones_like(every)))
        parts = None
        if not self.training and self.class_distribution is not None:
            parts = self._parts(word_scores, labels, classes)
        task_losses = TaskLosses(sums, counts, self.tasks)
        return Outputs(task_losses, shared=DisjointRows(rows, torch.cat([words, following])), predictions=parts)

    def task_counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The counts that the model would return for a batch, [10] or [11], without a forward pass."""
        words = self._owners(batch["classes"])
        following = torch.full_like(batch["next_sentence_label"], len(self.tasks) - 1)
        owners = torch.cat([words, _pool(words), following] if self.within_class else [words, following])
        return _sum_by_task(torch.ones_like(owners, dtype=torch.float32), owners, len(self.tasks))

    def _owners(self, classes: Tensor) -> Tensor:
        """The task of each masked word. ``OUTSIDE`` is none."""
        return classes.masked_fill(classes == OUTSIDE, len(self.tasks))

    @torch.no_grad()
    def _parts(self, word_scores: Tensor, labels: Tensor, classes: Tensor) -> Tensor:
        """Sums of the raw losses and their parts by class, and counts, [4, 9]."""
        within, of_class = decompose(word_scores, labels, classes, self.class_distribution)
        raw = _cross_entropy(word_scores, labels)
        columns = [raw, of_class, within, torch.ones_like(raw)]
        return torch.stack([_sum_by_task(values, classes, len(CLASSES)) for values in columns])

    def save_pretrained(self, save_directory: Any, is_main_process: bool = True, **kwargs: Any) -> None:
        """Write the weights (safetensors) and a configuration with the architecture ``BertForPreTraining``."""
        super().save_pretrained(save_directory, is_main_process=is_main_process, **kwargs)
        self.config.architectures = [BertForPreTraining.__name__]
        if is_main_process:
            self.config.save_pretrained(save_directory)


def _pool(words: Tensor) -> Tensor:
    """The task "class" for all words of a class."""
    return words.clamp(min=len(CLASSES))


def _first_tokens(input_ids: Tensor) -> Tensor:
    return torch.arange(0, input_ids.numel(), input_ids.shape[1], device=input_ids.device)


def _cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Element losses in float32. On CUDA the softmax includes the cast, and no float32 copy of the scores is kept."""
    return F.nll_loss(F.log_softmax(scores, dim=-1, dtype=torch.float32), labels, reduction="none")


def _sum_by_task(values: Tensor, owners: Tensor, number: int) -> Tensor:
    """Sums the values of each task, in a fixed order, unlike ``index_add`` on CUDA."""
    tasks = torch.arange(number, device=owners.device)
    return values.where(owners == tasks[:, None], 0).sum(-1)
