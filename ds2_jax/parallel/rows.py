"""Divides the rows of a batch among processes and devices."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class RowLayout:
    """Selects the rows of a batch that this process computes: those of its first device, then of its second, ...

    A batch is split into micro-batches. Each micro-batch is padded with empty rows and split evenly over the devices.
    So the devices do not affect which utterances form a micro-batch.

    Attributes:
        num_devices: number of devices of all processes.
        num_micro_batches: number of parts of a batch that are computed one after the other.
        num_processes: number of processes. All have the same number of devices.
        process_index: index of this process.
    """

    num_devices: int = 1
    num_micro_batches: int = 1
    num_processes: int = 1
    process_index: int = 0

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """Selects this process's rows of a batch: for each device its rows of each micro-batch.

        Args:
            indices: [B] int32, the utterances of the batch.

        Returns:
            [B'] int32, the utterances of this process; -1 for an empty row.
        """
        num_micro, num_devices = self.num_micro_batches, self.num_devices
        of_micro = -(-len(indices) // num_micro)
        of_device = -(-of_micro // num_devices)
        rows = np.full((num_micro, num_devices * of_device), -1, np.int32)
        for micro in range(num_micro):
            members = indices[micro * of_micro : (micro + 1) * of_micro]
            rows[micro, : len(members)] = members
        by_device = rows.reshape(num_micro, num_devices, of_device).swapaxes(0, 1)
        mine: np.ndarray = by_device.reshape(self.num_processes, -1)[self.process_index]
        return mine


ONE_DEVICE = RowLayout()
