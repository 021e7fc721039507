"""Trains the scope weights: the encoder's adapter, then the head that reads its vectors."""

from pathlib import Path

from safetensors.torch import save_file

from lifelong.encoder import HEAD, SentenceEncoder
from lifelong.models import resolve
from lifelong.train import head, recall
from lifelong.train.data import corpus


def write(data: Path, out: Path, *, name: str = "minilm", seed: int = 0) -> None:
    """Train the scope weights for the encoder `name` on `data`; write them to `out` (safetensors).

    Raises ModelMissing, ModelDamaged.
    """
    folder = resolve(name)
    encoder = SentenceEncoder(folder)
    made_for, texts = encoder.fingerprint, corpus(data)
    known = texts.part(seed)
    factors = recall.train(encoder, known, seed=seed)
    encoder = SentenceEncoder(folder)
    encoder.adapt(factors)
    weights = head.train(encoder, texts, known, seed=seed)
    save_file(
        {**factors, **{f"{HEAD}{key}": tensor for key, tensor in weights.items()}},
        out,
        metadata={"encoder": made_for, "seed": str(seed)},
    )
