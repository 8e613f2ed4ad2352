from taskrobust.cli.options import config_summaries


def configs() -> None:
    """List the bundled configurations and their purposes. Use one with ``--config NAME``."""
    summaries = config_summaries()
    width = max(map(len, summaries))
    for name, summary in summaries.items():
        print(f"{name:<{width}}  {summary}")
