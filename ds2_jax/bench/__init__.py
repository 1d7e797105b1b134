"""The benchmark: measures what training and transcribing cost, next to the same model in PyTorch.

`report.py` is the command. `measure.py` starts `work.py` (this project) and `peer.py` (PyTorch) as separate processes
and asks them to work, one at a time. They communicate through `child.py`. `costs.py` has the formulas.
"""
