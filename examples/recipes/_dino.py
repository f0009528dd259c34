"""Self-distillation without labels, for ``pretrain_classifier.py --objective dino``."""

from __future__ import annotations

import copy
import math

import torch
from torch import nn
from torch.nn import functional as F


class Dino(nn.Module):
    """Self-distillation without labels (Caron et al. 2021) of two views: the student predicts the teacher's softmax.

    Temperatures 0.1 (student) and 0.04 (teacher), centre momentum 0.9, teacher momentum 0.996 to 1 by a cosine.
    Deviations: two global views and no local ones, a head of two layers and 1024 prototypes, no schedule of the
    teacher's temperature and of the weight decay: for small runs.
    """

    def __init__(self, network: nn.Module, prototypes: int = 1024) -> None:
        super().__init__()
        network.reset_classifier(0)
        head = [nn.Linear(network.num_features, 256), nn.GELU(), nn.Linear(256, 128)]
        self.student = nn.Sequential(network, *head)
        self.prototypes = nn.Linear(128, prototypes, bias=False)
        self.teacher, self.targets = copy.deepcopy(self.student), copy.deepcopy(self.prototypes)
        for part in (self.teacher, self.targets):
            part.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(prototypes))

    def forward(self, views: torch.Tensor, labels: object = None) -> torch.Tensor:
        """The loss of ``views`` [N,2,3,H,W]."""
        views = views.flatten(0, 1)
        student = logits(self.student, self.prototypes, views) / 0.1
        with torch.no_grad():
            teacher = logits(self.teacher, self.targets, views)
            aim = ((teacher - self.centre) / 0.04).softmax(1)
            if self.training:
                self.centre.mul_(0.9).add_(0.1 * teacher.mean(0))
        swapped = aim.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
        return -(swapped * student.log_softmax(1)).sum(1).mean()

    @torch.no_grad()
    def follow(self, step: int, steps: int) -> None:
        """The teacher is a moving average of the student, slower towards the end."""
        share = 0.004 * (math.cos(math.pi * step / steps) + 1) / 2
        for kept, new in ((self.teacher, self.student), (self.targets, self.prototypes)):
            for a, b in zip(kept.state_dict().values(), new.state_dict().values(), strict=True):
                a.lerp_(b, share) if a.is_floating_point() else a.copy_(b)


def logits(body: nn.Module, prototypes: nn.Linear, views: torch.Tensor) -> torch.Tensor:
    """Cosine of every view to every prototype."""
    return F.linear(F.normalize(body(views), dim=1), F.normalize(prototypes.weight, dim=1))
