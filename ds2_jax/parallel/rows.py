"""Which rows of a batch each process and each device computes, and in which order."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class RowLayout:
    """Which rows of a batch this process computes, and in which order: those of its first device, of its second, ...

    A batch is split into micro-batches, and each of them evenly over the devices, with empty rows at its end; so which
    utterances form a micro-batch does not depend on the devices.

    Attributes:
        num_devices: of all processes.
        num_micro_batches: parts of a batch that are computed one after the other.
        num_processes: each has as many devices as any other.
        process_index: this process.
    """

    num_devices: int = 1
    num_micro_batches: int = 1
    num_processes: int = 1
    process_index: int = 0

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """[B] int32 of a batch -> [B'] int32 of this process: each device's rows of each micro-batch; -1 is empty."""
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
