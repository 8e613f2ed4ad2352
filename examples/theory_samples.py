"""How many samples the worst downstream task needs, by the parameters that its training starts from."""

from taskrobust.studies.theory import average_start, minimax_start, outlier_tasks, samples_needed


def main() -> None:
    optima = outlier_tasks()  # nine regression tasks that are alike and one that is not, 40 parameters
    for name, start in {"average": average_start(optima), "minimax": minimax_start(optima)}.items():
        risks = ((optima - start).square().sum(1) / 2).numpy()
        needed = samples_needed(risks, eps=2.0, delta=0.1, dimension=40)
        print(f"{name}: worst risk {risks.max():.2f}, samples for each task {needed.tolist()}, worst {needed.max()}")


if __name__ == "__main__":
    main()
