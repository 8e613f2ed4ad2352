"""Train on three pretext tasks weighted by average and minimax, then fit a linear probe on 40 labels."""

from taskrobust import MultiTaskLoss, RiskEstimator, SoftmaxMinimax, Uniform, Weighting
from taskrobust.studies.pretext import (
    CONVOLUTIONAL_FEATURES,
    ClassImages,
    Colorization,
    PretextNetwork,
    PretextPipeline,
    Rotation,
    SplitHalf,
    convolutional_network,
)


def main() -> None:
    data = ClassImages(classes=10, noise=0.3)
    unlabeled, labeled, test = (data.sample(number, seed) for seed, number in enumerate((1000, 40, 1000)))
    tasks = [Rotation(), Colorization(), SplitHalf()]
    names = [task.name for task in tasks]
    weightings: list[Weighting] = [Uniform(), SoftmaxMinimax()]
    for weighting in weightings:
        # One loss is a cross-entropy, two are squared errors: risks are relative to their initial values.
        criterion = MultiTaskLoss(names, weighting, risk=RiskEstimator(normalization="initial"))
        network = PretextNetwork(convolutional_network(), CONVOLUTIONAL_FEATURES, tasks, criterion, epochs=4)
        pipeline = PretextPipeline(network).fit(unlabeled[0], labeled)
        weights = ", ".join(f"{task} {weight.item():.2f}" for task, weight in criterion.weights.items())
        print(
            f"{type(weighting).__name__}: weights {weights}; worst {criterion.last.worst_task}; "
            f"accuracy of the probe {pipeline.score(*test):.2f}"
        )


if __name__ == "__main__":
    main()
