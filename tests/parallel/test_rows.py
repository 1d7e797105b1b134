"""A layout has each row once, and the same micro-batches for any number of devices."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ds2_jax.parallel.rows import RowLayout


@given(
    num_rows=st.integers(1, 40),
    num_processes=st.integers(1, 4),
    devices_each=st.integers(1, 3),
    num_micro=st.integers(1, 5),
)
def test_devices_share_the_same_micro_batches(
    num_rows: int, num_processes: int, devices_each: int, num_micro: int
) -> None:
    indices = np.arange(100, 100 + num_rows, dtype=np.int32)
    num_devices = num_processes * devices_each

    def micro_batches(num_devices: int, num_processes: int) -> list[list[int]]:
        """Collects the utterances of each micro-batch over all devices, in order."""
        layouts = [RowLayout(num_devices, num_micro, num_processes, index) for index in range(num_processes)]
        rows = np.concatenate([layout.rows(indices) for layout in layouts])
        by_device = rows.reshape(num_devices, num_micro, -1)
        return [[index for index in by_device[:, micro].ravel().tolist() if index >= 0] for micro in range(num_micro)]

    assert micro_batches(num_devices, num_processes) == micro_batches(1, 1)
    assert [index for micro in micro_batches(1, 1) for index in micro] == indices.tolist()


def test_one_device_computes_a_batch_in_its_order() -> None:
    indices = np.array([5, 3, 9, -1], np.int32)
    np.testing.assert_array_equal(RowLayout().rows(indices), indices)
