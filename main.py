"""The command line: python main.py [COMMAND] --config FILE [--section.field value ...]; see `main.py --help`."""

from ds2_jax.__main__ import main

if __name__ == "__main__":
    main()
