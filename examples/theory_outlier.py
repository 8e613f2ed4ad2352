"""Appendix C: the cost of averaging for an outlier among T tasks, for increasing T."""

from taskrobust.studies.theory import OutlierExample


def main() -> None:
    for num_tasks in (10, 100, 1000):
        example = OutlierExample.of_the_paper(num_tasks)
        average, minimax = example.worst_risk(example.theta_average), example.worst_risk(example.theta_minimax)
        print(f"T = {num_tasks:<4}: worst risk {average:.2f} with the average, {minimax:.2f} with minimax", end="")
        print(f", ratio {example.ratio:.1f}")


if __name__ == "__main__":
    main()
