import sys

from taskrobust.extras import MissingExtraError


def main() -> None:
    """Run the command that the command line names, or say which extra it needs."""
    try:
        from taskrobust import cli

        cli.main()
    except KeyboardInterrupt:  # while modules are imported
        sys.exit(130)
    except MissingExtraError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
