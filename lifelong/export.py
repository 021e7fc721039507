"""What is in the weights, for others: a merged checkpoint, or a LoRA adapter.

    W x + sum of U M^-1 V^T x   =   W x + B A x       a low-rank delta is a LoRA with scaling 1

Edits that are answered from memory stay behind: neither file knows prompts.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from lifelong.errors import NothingToExport
from lifelong.lm import LM
from store import Delta, StoredPatch

FORMATS = ("safetensors", "peft-lora")


def adapter(lm: LM, stored: Sequence[StoredPatch], folder: Path) -> None:
    """Write the live deltas as a LoRA for PEFT or vLLM into `folder`. Raises NothingToExport."""
    columns: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    for one in stored:
        assert isinstance(one.patch, Delta)
        for name, factors in one.patch.factors.items():
            up, down = map(torch.from_numpy, factors.of(one.live_positions).pair())
            columns.setdefault(name.removesuffix(".weight"), []).append((up, down))
    if not columns:
        raise NothingToExport("No edit is in the weights.", "Consolidate some, or save the model.")
    rank = max(sum(up.shape[1] for up, _ in pairs) for pairs in columns.values())
    tensors = {}
    for path, pairs in columns.items():
        up, down = (torch.cat(parts, dim=1) for parts in zip(*pairs, strict=True))
        tensors[f"base_model.model.{path}.lora_A.weight"] = _wide(down, rank).T.contiguous()
        tensors[f"base_model.model.{path}.lora_B.weight"] = _wide(up, rank)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(lm.model.config.name_or_path),
        "target_modules": sorted(columns),
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": bool(lm.layout and lm.layout.transposed),
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _wide(columns: torch.Tensor, rank: int) -> torch.Tensor:
    """With columns of nothing behind them: one rank for all modules is what every reader takes."""
    return torch.nn.functional.pad(columns, (0, rank - columns.shape[1])).contiguous()
