from taskrobust.cli.options import config_summaries


def configs() -> None:
    """Print the configurations that come with taskrobust, each with what it is for. ``--config NAME`` uses one."""
    summaries = config_summaries()
    width = max(map(len, summaries))
    for name, summary in summaries.items():
        print(f"{name:<{width}}  {summary}")
