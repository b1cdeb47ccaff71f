"""The command line: a file for each group of commands, each command a few lines over a callable."""

from topotrain.cli.program import Commands as Commands
from topotrain.cli.program import cli as cli
from topotrain.cli.program import main as main
