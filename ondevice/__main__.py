"""The console script, also as ``python -m ondevice``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Until a command is there to answer Ctrl+C, that just ends it."""
    try:
        import signal  # noqa: PLC0415 - even this takes a moment

        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        sys.exit(130)
    from ondevice import cli  # noqa: PLC0415 - and this a tenth of a second

    cli.main()


if __name__ == "__main__":
    main()
