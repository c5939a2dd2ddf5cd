"""The papers' equations once more, slow and obvious: a loop over every group and every split.

Nothing here is shared with the package but ``torch``; the modules under test lend their weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def norm(x: Tensor, bn) -> Tensor:
    shape = (1, -1, 1, 1)
    return (x - bn.running_mean.view(shape)) / torch.sqrt(
        bn.running_var.view(shape) + bn.eps
    ) * bn.weight.view(shape) + bn.bias.view(shape)


def grouped(x: Tensor, conv) -> Tensor:
    """A grouped convolution as one convolution per group."""
    groups = conv.groups
    biases = [None] * groups if conv.bias is None else conv.bias.chunk(groups)
    return torch.cat(
        [
            F.conv2d(part, weight, bias, conv.stride, conv.padding, conv.dilation)
            for part, weight, bias in zip(x.chunk(groups, 1), conv.weight.chunk(groups), biases)
        ],
        1,
    )


def pool3(x: Tensor, stride: int) -> Tensor:
    """The mean of nine neighbours, zeros beyond the border counted."""
    padded = F.pad(x, (1, 1, 1, 1))
    height, width = x.shape[2:]
    rows = range(0, height, stride)
    columns = range(0, width, stride)
    return torch.stack(
        [
            torch.stack([padded[:, :, r : r + 3, c : c + 3].sum((2, 3)) / 9 for c in columns], -1)
            for r in rows
        ],
        -2,
    )


def resnext(block, x: Tensor) -> Tensor:
    return F.relu(norm(grouped(x, block.conv2), block.bn2))


def squeeze_excite(se, u: Tensor) -> Tensor:
    out = torch.empty_like(u)
    for b in range(u.shape[0]):
        z = torch.stack([u[b, c].sum() / u[b, c].numel() for c in range(u.shape[1])])
        hidden = (se.fc1.weight[:, :, 0, 0] @ z + se.fc1.bias).clamp(min=0)
        s = 1 / (1 + torch.exp(-(se.fc2.weight[:, :, 0, 0] @ hidden + se.fc2.bias)))
        out[b] = u[b] * s[:, None, None]
    return out


def res2net(block, x: Tensor, first: bool, stride: int, pooled: bool = True) -> Tensor:
    w, s = block.width, block.scales
    outputs = []
    for i in range(max(s - 1, 1)):
        split = x[:, i * w : (i + 1) * w]
        if not first and i > 0:
            split = split + outputs[i - 1]
        outputs.append(F.relu(norm(grouped(split, block.convs[i]), block.bns[i])))
    if s > 1:
        last = x[:, (s - 1) * w :]
        outputs.append(pool3(last, stride) if first and pooled else last)
    return torch.cat(outputs, 1)


def split_attention(module, x: Tensor) -> Tensor:
    radix, groups, channels = module.radix, module.groups, module.channels
    u = F.relu(norm(grouped(x, module.conv), module.bn0))
    splits = [u[:, r * channels : (r + 1) * channels] for r in range(radix)]  # radix-major
    s = sum(splits).mean((2, 3), keepdim=True)
    hidden = F.relu(norm(grouped(s, module.fc1), module.bn1))
    logits = grouped(hidden, module.fc2)[:, :, 0, 0]  # group-major
    size = channels // groups
    out = torch.zeros_like(splits[0])
    for k in range(groups):
        base = k * radix * size
        scores = torch.stack(
            [logits[:, base + r * size : base + (r + 1) * size] for r in range(radix)]
        )
        weight = (
            torch.sigmoid(scores) if radix == 1 else torch.exp(scores) / torch.exp(scores).sum(0)
        )
        for r in range(radix):
            own = slice(k * size, (k + 1) * size)
            out[:, own] = out[:, own] + weight[r][:, :, None, None] * splits[r][:, own]
    return out


def selective_kernel(module, x: Tensor) -> Tensor:
    channels = module.channels
    parts = x.chunk(2, 1) if module.split_input else (x, x)
    u = [
        F.relu(norm(grouped(part, conv), bn))
        for part, conv, bn in zip(parts, module.convs, module.bns)
    ]
    s = (u[0] + u[1]).mean((2, 3), keepdim=True)
    z = F.relu(norm(grouped(s, module.fc1), module.bn1))
    scores = grouped(z, module.fc2)[:, :, 0, 0]
    of_first = 1 / (1 + torch.exp(scores[:, channels:] - scores[:, :channels]))
    return u[0] * of_first[:, :, None, None] + u[1] * (1 - of_first)[:, :, None, None]


def bottleneck(block, x: Tensor, mix, gate=lambda y: y) -> Tensor:
    y = F.relu(norm(grouped_strided(x, block.conv1), block.bn1))
    y = gate(norm(grouped_strided(mix(y), block.conv3), block.bn3))
    if block.downsample is not None:
        for layer in block.downsample:
            x = norm(x, layer) if hasattr(layer, 'running_mean') else layer(x)
    return F.relu(y + x)


def grouped_strided(x: Tensor, conv) -> Tensor:
    """A 1x1 convolution as a matrix product at every place."""
    x = x[:, :, :: conv.stride[0], :: conv.stride[1]]
    return torch.einsum('oi,bihw->bohw', conv.weight[:, :, 0, 0], x)
