from collections.abc import Sequence

from torch import Tensor, nn

from taskrobust.vision.downstream.heads.base import Head, initialize_head
from taskrobust.vision.mae.blocks import NORM_EPS


class LinearHead(Head):
    """Scores of classes from the mean of all tokens: normalized, then mapped linearly.

    Args:
        width: Length D of a token.
        depth: Blocks of the encoder.
        num_classes: Number of classes.
    """

    def __init__(self, width: int, depth: int, num_classes: int) -> None:
        super().__init__()
        self.blocks = (depth - 1,)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.linear = nn.Linear(width, num_classes)
        self.apply(initialize_head)

    def forward(self, layers: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        """Scores [B, num_classes], float32; the arguments are those of ``Head``."""
        scores: Tensor = self.linear(self.norm(layers[-1].mean(1)))
        return scores.float()
