"""What one of two processes computes: run by torch.distributed.run for test_two_processes.py.

Each check returns what both processes found and what one process finds on the union of their data.
The first process writes the results; they are compared in the test.
"""

import copy
import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.parallel import DistributedDataParallel

from mmresnest import build_backbone
from mmresnest.engine.distributed import leave_process_group
from mmresnest.engine.hooks.bn_statistics import estimate_statistics


class SyncedNorm(nn.BatchNorm2d):
    """SyncBN in the plainest words, which also gloo understands; torch's own refuses CPUs."""

    alone = False

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        sums = torch.stack(
            [
                x.sum((0, 2, 3)),
                x.square().sum((0, 2, 3)),
                x.new_full((x.shape[1],), x.numel() / x.shape[1]),
            ]
        )
        total, squares, count = sums if self.alone else all_reduce(sums)
        mean = total / count
        var = squares / count - mean.square()
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        x = (x - mean[:, None, None]) / (var + self.eps).sqrt()[:, None, None]
        return x * self.weight[:, None, None] + self.bias[:, None, None]


def backbone(**arguments):
    torch.manual_seed(0)
    return build_backbone(
        'resnest14', pretrained=False, out_indices=(0, 2), zero_init_residual=False, **arguments
    ).double()


def loss(model, images):
    return sum(one.square().mean() for one in model(images))


def state(model):
    found = {f'gradient of {name}': weight.grad for name, weight in model.named_parameters()}
    return {**found, **dict(model.named_buffers())}


def gradients(images, **arguments):
    alone, shared = backbone(**arguments), backbone(**arguments)
    for module in alone.modules():
        module.alone = True
    loss(alone, images).backward()
    wrapped = DistributedDataParallel(shared)  # it lives until the gradients are exchanged
    loss(wrapped, images.chunk(2)[dist.get_rank()]).backward()
    return state(shared), state(alone)


def frozen_norms(images):
    return gradients(images, norm_eval=True)


def synchronised_norms(images):
    return gradients(images, norm=SyncedNorm)


def own_norms(images):
    """Each with the statistics of its half, which is not the same as one process."""
    return gradients(images)


def precise_bn(images):
    """The processes have batches of different sizes, and as many."""
    mine = [images[:2], images[2:4]] if dist.get_rank() == 0 else [images[4:7], images[1:]]
    all_of_them = [images[:2], images[2:4], images[4:7], images[1:]]
    shared, union = backbone(frozen_stages=1), backbone(frozen_stages=1)
    assert estimate_statistics(shared, shared, mine) == 10
    watched = copy.deepcopy(union)
    kept = {}
    for name, module in watched.named_modules():
        pooled = name.endswith('conv2.bn1')  # computed without a call of the module
        if isinstance(module, nn.BatchNorm2d) and module.training and not pooled:
            module.register_forward_pre_hook(
                lambda _, args, name=name: kept.setdefault(name, []).append(args[0])
            )
        if name.endswith('conv2') and module.bn1.training:
            module.fc1.register_forward_hook(
                lambda _, args, out, name=name: kept.setdefault(f'{name}.bn1', []).append(out)
            )
    with torch.no_grad():
        for batch in all_of_them:
            watched(batch)
    for name, inputs in kept.items():
        values = torch.cat([x.transpose(0, 1).flatten(1) for x in inputs], 1)
        norm = union.get_submodule(name)
        norm.running_mean, norm.running_var = values.mean(1), values.var(1, correction=0)
    return dict(shared.named_buffers()), dict(union.named_buffers())


def main():
    dist.init_process_group('gloo')
    torch.manual_seed(1)
    images = torch.randn(8, 3, 32, 32, dtype=torch.float64)
    found = {
        check.__name__: check(images)
        for check in (frozen_norms, synchronised_norms, own_norms, precise_bn)
    }
    if dist.get_rank() == 0:
        torch.save(found, sys.argv[1])
    leave_process_group()


if __name__ == '__main__':
    main()
