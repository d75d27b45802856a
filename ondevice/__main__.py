"""``python -m ondevice`` is the console script."""

from ondevice.cli import main

main()
