"""python main.py [COMMAND] --config FILE [--section.field value ...]; see `python main.py --help`."""

from ds2_jax.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
