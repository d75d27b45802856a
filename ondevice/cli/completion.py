"""``ondevice completion``: the script that completes commands, options and models in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ondevice.cli import cli


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the script that completes commands in your shell.

    \b
      eval "$(ondevice completion bash)"       in ~/.bashrc
      eval "$(ondevice completion zsh)"        in ~/.zshrc
      ondevice completion fish | source        in ~/.config/fish/config.fish
    """
    completion = get_completion_class(shell)
    assert completion is not None
    click.echo(completion(cli, {}, "ondevice", "_ONDEVICE_COMPLETE").source())
