import torch
from torch import Tensor

from taskrobust.vision.downstream.metrics.sums import SumScores, ratio


class TopK(SumScores):
    """Share of the images whose class is the likeliest (``top1``), or among the five likeliest (``top5``).

    Args:
        num_classes: Number of classes. With five or fewer there is no ``top5``.
        unknown: Label of images that do not count.
        device: Where the predictions are.
    """

    def __init__(self, num_classes: int, unknown: int, device: torch.device) -> None:
        self.ranks = (1, 5) if num_classes > 5 else (1,)
        self.unknown = unknown
        super().__init__(torch.zeros(1 + len(self.ranks), dtype=torch.int64, device=device))

    def add(self, predictions: Tensor, truth: Tensor) -> None:
        """Take in scores of classes [B, C] and labels [B]."""
        hits = predictions.topk(self.ranks[-1]).indices == truth[:, None]
        known = truth != self.unknown
        self.sums += torch.stack([known.sum(), *((hits[:, :k].any(1) & known).sum() for k in self.ranks)])

    def scores(self, sums: Tensor) -> dict[str, Tensor]:
        """top1 and top5."""
        return {f"top{k}": ratio(sums[place], sums[0]) for place, k in enumerate(self.ranks, start=1)}
