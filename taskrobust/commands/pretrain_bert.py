import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from torch import Tensor, nn

from taskrobust._io.settings import AT_LEAST_0, AT_LEAST_1, MAY_CHANGE, PROBABILITY, Checked, recorded
from taskrobust.loss import MultiTaskLoss
from taskrobust.nlp.corpus.build import GRAMMAR, CorpusConfig, prepare
from taskrobust.nlp.corpus.store import TOKENIZER, Corpus
from taskrobust.nlp.corpus.wordpiece import load_wordpiece
from taskrobust.nlp.hub import check_on_hub
from taskrobust.nlp.masking import Masking
from taskrobust.nlp.tagging.tagset import CLASSES
from taskrobust.risk import RiskEstimator
from taskrobust.training.config import RunConfig, check_reference_model
from taskrobust.training.evaluation import Evaluation
from taskrobust.weighting import SoftmaxMinimax, Weighting

if TYPE_CHECKING:
    from taskrobust.nlp.model import PosBertForPreTraining

_HELD_OUT_MASK_SEED = 20231202


@dataclass(kw_only=True)
class BertShape(Checked):
    """The size of BERT. The defaults are BERT-base.

    Args:
        layers: Transformer layers.
        hidden: Width of the hidden states.
        heads: Attention heads.
        intermediate: Width of the feed-forward layers. Defaults to four times ``hidden``.
        dropout: Probability of dropout in the hidden states and in the attention, except in the attention of unpadded
            batches.
    """

    group: ClassVar = "bert"
    layers: Annotated[int, AT_LEAST_1] = 12
    hidden: Annotated[int, AT_LEAST_1] = 768
    heads: Annotated[int, AT_LEAST_1] = 12
    intermediate: Annotated[int | None, AT_LEAST_1] = None
    dropout: Annotated[float, PROBABILITY] = 0.1


def pretrain_bert(
    corpus: CorpusConfig,
    output: Annotated[Path, MAY_CHANGE],
    *,
    weighting: Weighting = SoftmaxMinimax(),  # noqa: B008
    risk: RiskEstimator = RiskEstimator(),  # noqa: B008
    tasks: Literal["raw", "within_class"] = "raw",
    class_weight: Annotated[float, AT_LEAST_0] = 1.0,
    nsp_weight: Annotated[float, AT_LEAST_0] = 1.0,
    masking: Callable[[Any], Masking] = Masking,
    bert: BertShape = BertShape(),  # noqa: B008  # read only
    init_from: str | None = None,
    reference_model: str | None = None,
    held_out_pairs: Annotated[int, AT_LEAST_1] = 2048,
    run: RunConfig = RunConfig(),  # noqa: B008
    resolved: dict[str, Any] | None = None,
) -> Evaluation:
    """Pre-train a Part-of-Speech Mask BERT: nine masked language modeling tasks and next sentence prediction.

    The run folder holds config.yaml, metrics.jsonl, tensorboard/, checkpoints/, the final
    model in model/ and the model with the best worst class on held-out text in best/. Load both with
    ``from_pretrained``.

    Args:
        corpus: The annotated text, and its sources.
        output: The run folder.
        weighting: The weighting of the nine classes. Uniform averages them (equation 4 of the paper), Proportional is
            BERT's masked language modeling loss.
        risk: Smoothing and unit of the classes' risks, their mean losses, and the reference of excess risks.
        tasks: The risks of the nine classes. ``raw``: cross-entropies of the words, as in the paper. ``within_class``:
            cross-entropies of the words given their class, which weights cannot lower by making a class more probable
            everywhere. The risk of the class itself is then a task of fixed weight.
        class_weight: That weight.
        nsp_weight: Fixed weight of next sentence prediction, which is not part of the weighting.
        masking: Selection of the words to mask.
        bert: The size of the model.
        init_from: A model to start from, with its own size: a folder or a name on the hub. None starts from random
            parameters.
        held_out_pairs: Number of held-out pairs to evaluate, always with the same masks.
        reference_model: A frozen model for excess risks with ``risk.reference`` ModelReference: its risks on the same
            samples are the reference. A run folder, a model's folder or a name on the hub.
        run: Loop, optimizer, device and the other settings of a run.
        resolved: The configuration in plain values, recorded in the run folder. Defaults to that of the arguments.
    """
    settings = resolved or recorded(locals())
    check_reference_model(risk, reference_model)
    for model in (init_from, reference_model):
        if model is not None:
            check_on_hub(model)
    prepare(corpus)

    # These take seconds to import, which --help and errors in options do not need.
    from transformers.models.bert.modeling_bert import BertLayer
    from transformers.utils import logging as transformers_logging

    from taskrobust.nlp.attention import UNPADDED
    from taskrobust.nlp.classifier import find_pretrained
    from taskrobust.nlp.decomposition import DecompositionScores, class_distribution
    from taskrobust.nlp.model import PosBertForPreTraining
    from taskrobust.training.recipe import HeldOut, Recipe
    from taskrobust.training.run import Run

    transformers_logging.disable_progress_bar()  # of writing the model: one file
    started = Run.start(pretrain_bert, Path(output), run, settings)
    on_cpu, precision = started.accelerator.device.type == "cpu", started.device.precision
    train, held_out = Corpus(corpus.train), Corpus(corpus.held_out)
    _check_same_vocabulary(train, corpus.held_out)
    masks = masking(train.tokenizer)
    if masks.unpadded and precision == "fp32" and not on_cpu:
        raise ValueError("Expected precision bf16 or fp16 for unpadded batches on CUDA, got fp32.")
    held_out_masks = Masking(train.tokenizer, schedule="dynamic", unpadded=masks.unpadded, seed=_HELD_OUT_MASK_SEED)

    def make_model(start: str | None) -> PosBertForPreTraining:
        model = _make_model(bert, train, start, attention_dropout=0.0 if masks.unpadded else bert.dropout)
        if masks.unpadded:
            model.set_attn_implementation(UNPADDED)
        elif on_cpu and precision == "bf16":
            model.set_attn_implementation("eager")  # sdpa's backward pass is slow in bf16 there
        model.set_class_distribution(distribution, within_class=tasks == "within_class")
        return model

    distribution = class_distribution(train.counts)

    model = make_model(init_from)
    reference = None if reference_model is None else make_model(find_pretrained(reference_model))
    if run.device.compile:
        model.bert.compile()
    criterion = MultiTaskLoss(
        CLASSES,
        copy.deepcopy(weighting),
        risk=copy.deepcopy(risk),
        auxiliary={"class": class_weight, "nsp": nsp_weight} if tasks == "within_class" else {"nsp": nsp_weight},
        on_nonfinite=run.on_nonfinite,
    )

    def export(trained: nn.Module, state: dict[str, Tensor], folder: Path) -> None:
        assert isinstance(trained, PosBertForPreTraining)
        trained.save_pretrained(folder, state_dict=state)
        train.tokenizer.model_max_length = trained.config.max_position_embeddings
        train.tokenizer.save_pretrained(folder)

    recipe = Recipe(
        model=model,
        criterion=criterion,
        data=train,
        collate=masks,
        held_out=HeldOut(
            samples=held_out,
            collate=held_out_masks,
            number=min(held_out_pairs, len(held_out)),
            scores=DecompositionScores,
        ),
        export=export,
        task_counts=model.task_counts,
        layers=(BertLayer,),
        reference=reference,
    )
    glue = "miniature" if corpus.train_source == GRAMMAR else "nyu-mll/glue"
    return started.train(
        recipe,
        [
            ("finetune-glue", "--model", str(output), "--glue", glue, "--output", f"{output}-glue"),
            ("compare", str(output), "ANOTHER_RUN"),
        ],
    )


def _make_model(
    bert: BertShape, corpus: Corpus, init_from: str | None, attention_dropout: float
) -> "PosBertForPreTraining":
    from transformers import BertConfig

    from taskrobust.nlp.model import PosBertForPreTraining

    if init_from is not None:
        _check_same_vocabulary(corpus, init_from)
        model: PosBertForPreTraining = PosBertForPreTraining.from_pretrained(
            init_from, hidden_dropout_prob=bert.dropout, attention_probs_dropout_prob=attention_dropout
        )
        if model.config.max_position_embeddings < corpus.sequence_length:
            raise ValueError(
                f"Expected a model for sequences of {corpus.sequence_length} tokens, as the corpus has, got one for "
                f"{model.config.max_position_embeddings} in {init_from}."
            )
        return model
    return PosBertForPreTraining(
        BertConfig(
            vocab_size=corpus.vocab_size,
            num_hidden_layers=bert.layers,
            hidden_size=bert.hidden,
            num_attention_heads=bert.heads,
            intermediate_size=bert.intermediate or 4 * bert.hidden,
            hidden_dropout_prob=bert.dropout,
            attention_probs_dropout_prob=attention_dropout,
            max_position_embeddings=max(512, corpus.sequence_length),
        )
    )


def _check_same_vocabulary(train: Corpus, other: Path | str) -> None:
    tokenizer = load_wordpiece(other / TOKENIZER if isinstance(other, Path) else other)
    if tokenizer.get_vocab() != train.tokenizer.get_vocab():
        raise ValueError(
            f"Expected {other} to have the vocabulary of {train.folder}, got another one. Annotate the text again with "
            f"one --tokenizer for both."
        )
