"""A processor trained on too few downstream samples is worse than none, although it uses more data."""

import torch

from taskrobust.studies.pretext import GaussianData, Processor, fit_linear, linear_network


def main() -> None:
    data = GaussianData()
    unlabeled, labeled, test = (data.sample(number, seed) for seed, number in enumerate((5000, 40, 5000)))

    def error(processor: Processor | None) -> float:
        """Error of processor, pretext task and linear probe."""

        def features(inputs: torch.Tensor) -> torch.Tensor:
            return inputs if processor is None else processor.transform(inputs)

        pretext = fit_linear(features(unlabeled.inputs), unlabeled.pretext)
        probe = fit_linear(pretext(features(labeled.inputs)), labeled.labels, ridge=1e-3)
        predictions = probe(pretext(features(test.inputs)))
        return float((predictions - test.labels).square().mean())

    plain = error(None)
    print(f"plain self-supervised learning: error {plain:.2f}")
    for number in (20, 2000):
        extra = data.sample(number, seed=10)
        processor = Processor(linear_network(52, 12), penalty=0.3, steps=300)
        processor.fit((extra.inputs, extra.labels), (unlabeled.inputs, unlabeled.pretext))
        boosted = error(processor)
        print(f"processor from {number} downstream samples: error {boosted:.2f}, difference {boosted - plain:+.2f}")


if __name__ == "__main__":
    main()
