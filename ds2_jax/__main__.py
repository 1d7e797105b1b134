"""The entry point of `python -m ds2_jax [COMMAND] ...` and of the program ds2-jax; see `ds2-jax --help`."""

from typing import NoReturn

from ds2_jax.system import interrupts


def main() -> NoReturn:
    """Runs the command of this process's arguments and ends the process."""
    interrupts.watch()
    from ds2_jax import cli  # a slow import, during which Ctrl-C must already work

    interrupts.leave(cli.main())


if __name__ == "__main__":
    main()
