"""The command line: from the functions in ``taskrobust.commands`` to options, help and errors."""

from taskrobust.cli.app import COMMANDS, main, options_of, run

__all__ = ["COMMANDS", "main", "options_of", "run"]
