"""python -m ds2_jax [COMMAND] ..., and the program ds2-jax; see `ds2-jax --help`."""

from typing import NoReturn

from ds2_jax.system import interrupts


def main() -> NoReturn:
    """Runs the command that this process was started with, and ends the process."""
    interrupts.watch()
    from ds2_jax import cli  # takes a moment, in which Ctrl-C must work already

    interrupts.leave(cli.main())


if __name__ == "__main__":
    main()
