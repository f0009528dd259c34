"""Recipes of publications for ``pretrain_classifier.py``: what each option is where the command line leaves it out."""

from __future__ import annotations

from typing import Any

HALF, RANDAUG = (0.5,) * 3, "rand-m9-mstd0.5-inc1"
MIXED = {"augment": RANDAUG, "mixup": 0.8, "cutmix": 1.0, "smoothing": 0.1, "erase": 0.25}
DEIT = {**MIXED, "opt": "adamw", "lr": 1e-3, "weight_decay": 0.05, "drop_path": 0.1, "floor": 0.01, "size": 224}
# Learning rates that a publication scales by the batch are written out. ``warmup`` is a share of all steps, ``floor``
# the share of the learning rate left at the end. Repeated augmentation (deit, visual-atom) is not done.
PRESETS: dict[str, dict[str, Any]] = {
    # Ours: a model for 32 to 64 px on a laptop.
    "laptop": {"model": "test_resnet", "size": 32, "batch_size": 32, "lr": 4e-3, "scale": (0.5, 1.0)},
    # FractalDB, Kataoka et al. (ACCV 2020), released code. The IJCV text says lr 0.01.
    "fractaldb": {
        "model": "resnet50", "size": 224, "batch_size": 256, "opt": "momentum", "lr": 0.1, "weight_decay": 1e-4,
        "epochs": 90, "schedule": "step", "warmup": 0.0, "hflip": 0.0, "crop": "random",
        "mean": (0.2,) * 3, "std": HALF,
    },
    # ExFractalDB-1k, RCDB-1k: Kataoka et al. (CVPR 2022), released code.
    "deit": {
        **DEIT, "model": "deit_base_patch16_224", "batch_size": 256, "epochs": 300, "warmup": 5 / 300, "hflip": 0.0,
    },
    # VisualAtom-21k, Takashima et al. (CVPR 2023), released code: 5000 of 230 713 steps are warm-up.
    "visual-atom": {
        **DEIT, "model": "deit_base_patch16_224", "batch_size": 8192, "epochs": 90, "warmup": 0.0217, "hflip": 0.0,
    },
    # OFDB-1k (ICCV 2023) and 1p-frac-1k (ECCV 2024), released code: lr 1e-3 × batch / 512, 3 steps per epoch.
    "ofdb": {
        **DEIT, "model": "vit_tiny_patch16_224", "batch_size": 256, "lr": 5e-4, "steps": 240_000,
        "warmup": 15 / 240_000, "vflip": 0.5, "erase": 0.5, "mean": HALF, "std": HALF,
    },
    # Several fractals per image: Anderson and Farrell (WACV 2022).
    "multi-instance": {
        "model": "resnet50", "size": 224, "objective": "multi", "batch_size": 256, "opt": "momentum", "lr": 0.1,
        "weight_decay": 1e-4, "epochs": 90,
    },
    # DINO, Caron et al. (ICCV 2021): lr 5e-4 × batch / 256. Deviations: see _dino.py.
    "dino": {
        "model": "vit_small_patch16_224", "size": 224, "objective": "dino", "batch_size": 256, "lr": 5e-4,
        "weight_decay": 0.04, "epochs": 100, "warmup": 0.1, "drop_path": 0.1, "scale": (0.4, 1.0),
    },
    # Fine-tuning of the ViT papers above on small sets: lr 0.01 × batch / 512.
    "finetune-vit": {
        **MIXED, "size": 224, "batch_size": 768, "opt": "momentum", "lr": 0.015, "weight_decay": 1e-4, "epochs": 1000,
        "warmup": 0.01,
    },
    # Fine-tuning on ImageNet-1k (CVPR 2022).
    "finetune-imagenet": {**DEIT, "batch_size": 1024, "epochs": 300, "warmup": 5 / 300},
}  # fmt: skip
BASE = {
    "model": "test_resnet", "size": 32, "objective": "supervised", "batch_size": 64, "opt": "adamw", "lr": 1e-3,
    "weight_decay": 0.05, "steps": 600, "epochs": None, "schedule": "cosine", "warmup": 0.05, "floor": 0.0,
    "drop_path": 0.0, "augment": None, "scale": (0.08, 1.0), "crop": "resized", "hflip": 0.5, "vflip": 0.0,
    "mixup": 0.0, "cutmix": 0.0, "smoothing": 0.0, "erase": 0.0,
    "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225),
}  # fmt: skip
