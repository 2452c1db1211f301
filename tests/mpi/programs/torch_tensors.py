"""Tensors in, tensors out."""

import ronde
import torch

ronde.init()
rank, size = ronde.rank(), ronde.size()
total = size * (size - 1) / 2
for dtype in (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int32,
    torch.uint8,
):
    x = torch.full((3, 4), rank, dtype=dtype)
    y = ronde.allreduce(x, ronde.Sum)
    assert isinstance(y, torch.Tensor) and y.dtype is dtype and bool((y == total).all())
    assert bool((x == rank).all())
    ronde.allreduce_(x.t(), ronde.Sum)
    assert bool((x == total).all())
    g = ronde.allgather(torch.full((rank + 1,), rank, dtype=dtype))
    assert g.dtype is dtype and g.shape == (size * (size + 1) // 2,)
    s = ronde.scatter(torch.arange(size * 2).to(dtype) if rank == 0 else None)
    assert isinstance(s, torch.Tensor) and s.dtype is dtype and s[0] == 2 * rank
parameter = torch.nn.Parameter(torch.full((2,), float(rank)))
ronde.broadcast_(parameter, size - 1)
assert parameter.requires_grad and bool((parameter == size - 1).all())
model = torch.nn.Linear(3, 2)
ronde.broadcast_parameters(model.state_dict())
ronde.broadcast_parameters(model.named_parameters())
assert len(set(ronde.allgather_object(model.weight.sum().item()))) == 1
assert ronde.allreduce(torch.tensor(float(rank))).shape == ()
if rank == 0:
    print("tensors are right")
