#!/usr/bin/env bash
# Measures training steps on this machine's accelerator; no part begins after seven minutes: versions, then steps of two sizes
# in float32 and bfloat16, with shard_map and with pmap, and the same model in PyTorch if it is installed.
#
#   deploy/accelerator.sh
#
# It needs Python with JAX, Flax, Optax and NumPy, and nothing else of requirements.txt.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export XLA_PYTHON_CLIENT_PREALLOCATE=false # PyTorch uses the same device
export PYTHONUNBUFFERED=1
exec python3 -m ds2_jax.bench.accelerator
