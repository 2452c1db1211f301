"""Data-parallel training of a small transformer that writes Python, on any number of processes.

    python examples/torch_language_model.py
    ronde run -np 4 python examples/torch_language_model.py

The text is Python's own standard library, byte by byte. Every rank learns from passages of its own, with
gradients averaged over the ranks during `backward()`, so that clipping and the learning rate schedule work
as in one process. A checkpoint, if asked for, is written by rank 0, and goes to all ranks on start.

Needs torch and tqdm: pip install "ronde[torch,examples]".
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import sysconfig
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # every rank is one thread; see torch_train.py

import ronde.torch as hvd
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

WORDS = 256  # bytes
HELD_OUT = 20  # one part in so many is not learned from


def read_library(size: int) -> Tensor:
    """So many bytes of the standard library, from the machine of rank 0, as versions of Python differ."""
    text = b""
    if hvd.rank() == 0:
        for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
            text += file.read_bytes()
            if len(text) >= size:
                break
    text = hvd.broadcast_object(text[:size], root_rank=0)
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)


class Transformer(nn.Module):
    """Predicts the next byte of each position from those before it."""

    def __init__(self, width: int, layers: int, context: int) -> None:
        super().__init__()
        self.bytes = nn.Embedding(WORDS, width)
        self.positions = nn.Embedding(context, width)
        layer = nn.TransformerEncoderLayer(
            width, width // 32, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        """From bytes (rows, length) to logits (rows, length, 256)."""
        length = x.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        h = self.bytes(x) + self.positions.weight[:length]
        logits: Tensor = self.head(self.norm(self.layers(h, mask, is_causal=True)))
        return logits


def passages(text: Tensor, rows: int, context: int, random: torch.Generator) -> Tensor:
    """Random passages of `context + 1` bytes."""
    starts = torch.randint(len(text) - context, (rows, 1), generator=random)
    return text[starts + torch.arange(context + 1)].long()


def loss_of(model: nn.Module, x: Tensor) -> Tensor:
    """Nats per byte."""
    return functional.cross_entropy(model(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())


@torch.no_grad()
def bits_per_byte(model: nn.Module, text: Tensor, args: argparse.Namespace) -> float:
    """Of passages that were not learned from, others on each rank."""
    random = torch.Generator().manual_seed(hvd.rank())
    loss = loss_of(model, passages(text, 32, args.context, random))
    return hvd.allreduce(loss, name="bits per byte").item() / math.log(2)


@torch.no_grad()
def written(model: nn.Module, args: argparse.Namespace, start: bytes, length: int) -> str:
    """What the model goes on with."""
    text = list(start)
    random = torch.Generator().manual_seed(args.seed)
    for _ in range(length):
        logits = model(torch.tensor([text[-args.context :]]))[0, -1] / 0.7
        text.append(int(torch.multinomial(logits.softmax(0), 1, generator=random)))
    return bytes(text).decode(errors="replace")


def share(step: int, args: argparse.Namespace) -> float:
    """The share of the learning rate: it warms up for a tenth of the steps, then falls to zero."""
    warm = max(1, args.steps // 10)
    if step < warm:
        return (step + 1) / warm
    return (1 + math.cos(math.pi * (step - warm) / max(1, args.steps - warm))) / 2


def load_checkpoint(path: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Read by rank 0, if it is there; `broadcast_parameters` gives it to the others."""
    if hvd.rank() == 0 and os.path.exists(path):
        saved = torch.load(path, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, text: Tensor, args: argparse.Namespace
) -> float:
    """Returns the loss of the last step, of all ranks."""
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: share(step, args))
    random = torch.Generator().manual_seed(args.seed * hvd.size() + hvd.rank())
    is_first, in_terminal = hvd.rank() == 0, sys.stderr.isatty()
    progress = tqdm(range(args.steps), unit="step", disable=not (is_first and in_terminal))
    for step in progress:
        loss = loss_of(model, passages(text, args.rows, args.context, random))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # of all ranks: they are reduced
        optimizer.step()
        scheduler.step()
        if step % 20 == 0 or step == args.steps - 1:
            mean = hvd.allreduce(loss.detach(), name="loss").item()
            progress.set_postfix(loss=f"{mean:.3f}")
            if is_first and not in_terminal:
                print(f"step {step + 1} of {args.steps}: loss {mean:.3f}", flush=True)
    return mean


def positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {value}")
    return value


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=positive, default=200)
    parser.add_argument("--rows", type=positive, default=8, help="passages a step, of each rank")
    parser.add_argument("--context", type=positive, default=64, help="bytes that it sees")
    parser.add_argument("--width", type=positive, default=96, help="a multiple of 32")
    parser.add_argument("--layers", type=positive, default=2)
    parser.add_argument("--learning-rate", type=float, default=0.003)
    parser.add_argument("--bytes", type=positive, default=1_000_000, help="of text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compression", metavar="NAME", help="a ronde.compression: auto, int4 ...")
    parser.add_argument(
        "--checkpoint", metavar="FILE", help="begin with it, and write it at the end"
    )
    args = parser.parse_args()
    if args.width % 32:
        parser.error(f"--width must be a multiple of 32, not {args.width}")
    if args.bytes < 2 * HELD_OUT * (args.context + 1):
        parser.error(
            f"--bytes must be at least {2 * HELD_OUT * (args.context + 1)} for this context"
        )
    return args


def main() -> None:
    args = parse_arguments()
    hvd.init()
    learned, held_out = read_library(args.bytes).tensor_split(
        [args.bytes * (HELD_OUT - 1) // HELD_OUT]
    )
    torch.manual_seed(args.seed)
    model = Transformer(args.width, args.layers, args.context)
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate)
    if args.checkpoint:
        load_checkpoint(args.checkpoint, model, optimizer)
    optimizer = hvd.DistributedOptimizer(
        optimizer,
        named_parameters=model.named_parameters(),
        compression=args.compression or hvd.Compression.none,
    )
    hvd.broadcast_parameters(model.state_dict(), root_rank=0)
    hvd.broadcast_optimizer_state(optimizer, root_rank=0)

    start = time.perf_counter()
    loss = train(model, optimizer, learned, args)
    seconds = time.perf_counter() - start
    bits = bits_per_byte(model, held_out, args)
    if hvd.rank() == 0:
        if args.checkpoint:
            saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(saved, args.checkpoint)
        seen = args.steps * args.rows * args.context * hvd.size() / seconds
        print("\n" + written(model, args, b"def ", 200) + "\n")
        print(
            f"{'ranks':>5} {'steps':>6} {'loss':>8} {'bits/byte':>9} {'seconds':>8} {'bytes/s':>8}"
        )
        print(f"{hvd.size():5} {args.steps:6} {loss:8.3f} {bits:9.3f} {seconds:8.1f} {seen:8.0f}")


if __name__ == "__main__":
    main()
