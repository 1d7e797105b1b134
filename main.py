"""python main.py [COMMAND] --config FILE [--section.field value ...]; see `python main.py --help`."""

from ds2_jax.system import interrupts

if __name__ == "__main__":
    interrupts.watch()
    from ds2_jax.cli import main  # takes a second, in which Ctrl-C must work already

    interrupts.leave(main())
