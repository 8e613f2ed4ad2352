"""The number of samples that the worst downstream task needs, depending on the initial parameters."""

from taskrobust.studies.theory import average_start, minimax_start, outlier_tasks, samples_needed


def main() -> None:
    optima = outlier_tasks()  # nine similar regression tasks and an outlier, 40 parameters
    for name, start in {"average": average_start(optima), "minimax": minimax_start(optima)}.items():
        risks = ((optima - start).square().sum(1) / 2).numpy()
        needed = samples_needed(risks, eps=2.0, delta=0.1, dimension=40)
        print(f"{name}: worst risk {risks.max():.2f}, samples per task {needed.tolist()}, worst {needed.max()}")


if __name__ == "__main__":
    main()
