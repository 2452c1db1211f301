"""A sampler that remembers what of an epoch has been seen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

import torch
import torch.utils.data

import ronde

__all__ = ["ElasticSampler"]


class ElasticSampler(torch.utils.data.Sampler):
    """Give each rank its share of the samples that no rank has processed in this epoch.

    Put it into a `TorchState`, and record each batch: when training starts again in the middle of an
    epoch, what the ranks had processed at the last commit is left out, and the rest is shared anew.
    Shares have the same length: where the samples do not divide, some come twice.

        sampler = hvd.elastic.ElasticSampler(dataset)
        loader = DataLoader(dataset, batch_size=32, sampler=sampler)
        state = hvd.elastic.TorchState(model, optimizer, sampler=sampler, epoch=0)
        for number, batch in enumerate(loader):
            ...
            state.sampler.record_batch(number, 32)
            state.commit()
        state.sampler.set_epoch(state.epoch + 1)  # at the end of the epoch, not at the beginning

    Args:
        dataset: what has a length, the same on all ranks.
        shuffle: whether the order is another in each epoch.
        seed: of the order, the same on all ranks.
    """

    def __init__(self, dataset: Sized, shuffle: bool = True, seed: int = 0) -> None:
        self.dataset = dataset
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0
        self.processed_indices: set[int] = set()
        self.reset()

    def set_epoch(self, epoch: int) -> None:
        """Begin an epoch, of which nothing has been processed. Call it at the end of the one before."""
        self.epoch = epoch
        self.processed_indices = set()
        self.reset()

    def record_batch(self, batch_idx: int, batch_size: int) -> None:
        """Record a batch of this rank as processed: its number since iteration began, and its size."""
        self.record_indices(self.get_indices(batch_idx, batch_size))

    def record_indices(self, indices: Iterable[int]) -> None:
        """Record samples as processed, by their indices in the dataset."""
        self.processed_indices.update(indices)

    def get_indices(self, batch_idx: int, batch_size: int) -> list[int]:
        """Return the indices of a batch of this rank."""
        start = batch_idx * batch_size
        return self.indices[start : start + batch_size]

    def reset(self) -> None:
        """Share out what has not been processed. The ranks must know the same: `State.sync` sees to it."""
        self.num_replicas, self.rank = ronde.size(), ronde.rank()
        total = len(self.dataset)
        order: list[int] = list(range(total))
        if self.shuffle:
            random = torch.Generator().manual_seed(self.seed + self.epoch)
            order = torch.randperm(total, generator=random).tolist()
        remaining = [index for index in order if index not in self.processed_indices]
        self.remaining_indices = remaining
        self.num_samples = -(-len(remaining) // self.num_replicas)
        self.total_size = self.num_samples * self.num_replicas
        self.indices = [
            remaining[position % len(remaining)]
            for position in range(self.rank, self.total_size, self.num_replicas)
        ]

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, and the indices that have been processed in it."""
        return {"epoch": self.epoch, "processed_indices": set(self.processed_indices)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` has returned, and share out the rest."""
        self.epoch = state_dict["epoch"]
        self.processed_indices = set(state_dict["processed_indices"])
        self.reset()

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return self.num_samples
