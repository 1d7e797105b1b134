"""The benchmark: what training and transcribing cost here, beside the same model in PyTorch.

`report.py` is the command. `measure.py` starts `work.py` (this project) and `peer.py` (PyTorch) as processes of their
own and asks them, one at a time, to do a piece of work; `child.py` is how they talk. `costs.py` holds the formulas.
"""
