"""RoIAlign (He et al., Mask R-CNN, 2017): averages of bilinear samples, and their largest.

A bin (p, q) of a RoI takes n_y × n_x samples on a regular grid, and bilinear interpolation is a
product of one weight along y and one along x.  The average over the grid is then a product too:

    out[r, c, p, q] = Σ_y Σ_x  Y[r, p, y] · X[r, q, x] · feature[b_r, c, y, x]

with Y[r, p, y] = 1/n_y · Σ_s tent(y - y_s), and X likewise.  Y and X are small, and
nonzero only at the cells that a bin touches.  So the whole op is a sparse matrix (bins × cells)
times the feature map with one row of channels per cell, however many samples a bin takes.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from . import torchvision
from .geometry import RoIGeometry
from .sparse import Entries, bag_starts, sum_rows, sum_rows_transposed, working_dtype

# Nonzero entries of the sparse matrix held at once: about 100 MB with everything beside them.
ENTRIES = 1 << 21
# Values sampled for a maximum held at once: 64 MB of float32, and twice that beside it.
SAMPLED = 1 << 24
# More samples per bin and axis than any map has cells; keeps a runaway RoI from eating the memory.
MOST_SAMPLES = 1 << 12
# What a maximum starts from in compiled mmcv, hence the value of a bin without samples.
LOWEST = -10000.0


class Samples(NamedTuple):
    """Where the bins of each RoI are sampled along one axis, in cells of the map.

    Attributes:
        place: (RoIs, bins, samples) coordinates.
        inside: whether a sample exists and lies on the map, one cell of margin included.
        number: (RoIs,) samples per bin.
    """

    place: Tensor
    inside: Tensor
    number: Tensor


class Taps(NamedTuple):
    """The nonzero entries of Y or X, row by row.

    Attributes:
        cell: (entries,) the cell along this axis.
        weight: (entries,) its weight.
        number: (RoIs, bins) entries per row.
        first: (RoIs, bins) where each row begins.
    """

    cell: Tensor
    weight: Tensor
    number: Tensor
    first: Tensor


def sample_axis(
    low: Tensor, high: Tensor, bins: int, length: int, ratio: int, aligned: bool
) -> Samples:
    """Place the samples of every bin along one axis.

    Args:
        low: (RoIs,) where the RoIs begin, in cells.
        high: (RoIs,) where they end.
        bins: number of bins along this axis.
        length: cells of the map along this axis.
        ratio: samples per bin; 0 takes one per cell that a bin spans.
        aligned: a RoI may be thinner than one cell; else it is at least one cell wide.
    """
    extent = high - low
    if not aligned:
        extent = extent.clamp(min=1)
    width = extent / bins
    number = width.ceil() if ratio <= 0 else torch.full_like(width, ratio)
    # A RoI of negative or undefined size takes no sample.
    number = torch.nan_to_num(number, nan=0, posinf=0).clamp(0, MOST_SAMPLES)
    most = int(number.max()) if len(number) else 0
    s = torch.arange(most, device=low.device, dtype=low.dtype)
    p = torch.arange(bins, device=low.device, dtype=low.dtype)
    width, number_ = width[:, None, None], number[:, None, None]
    place = low[:, None, None] + p[:, None] * width + (s + 0.5) * width / number_  # R P N
    inside = (s < number_) & (place >= -1) & (place <= length)
    return Samples(place, inside, number)


def bilinear_corners(place: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the two cells about each place and the upper one's share; the border is repeated."""
    place = torch.nan_to_num(place).clamp(0, length - 1)
    lower = place.floor()
    return lower.int(), (lower + 1).clamp(max=length - 1).int(), place - lower


def axis_taps(samples: Samples, length: int) -> Taps:
    """Build the rows of Y or X: tent weights summed over the samples of a bin."""
    share = samples.inside / samples.number.clamp(min=1)[:, None, None]
    lower, upper, fraction = bilinear_corners(samples.place, length)
    matrix = share.new_zeros(*share.shape[:2], length)  # R P L
    matrix.scatter_add_(2, lower.long(), share * (1 - fraction))
    matrix.scatter_add_(2, upper.long(), share * fraction)
    roi, bin_, cell = matrix.nonzero(as_tuple=True)
    number = (matrix != 0).sum(2, dtype=torch.int32)
    return Taps(
        cell.int(), matrix[roi, bin_, cell], number, bag_starts(number.flatten()).view_as(number)
    )


def outer_entries(image: Tensor, y: Taps, x: Taps, shape: tuple[int, int]) -> Entries:
    """Multiply Y and X out into the entries of the sparse matrix, bin by bin.

    Two expansions, first of each bin by its cells along y, then of those by the cells along x;
    an entry costs five gathers of four bytes.

    Args:
        image: (RoIs,) which image of the batch.
        y: rows of Y.
        x: rows of X.
        shape: height and width of the map.

    Returns:
        one bag per bin, in the order RoI, bin along y, bin along x; rows are cells of the batch.
    """
    height, width = shape
    bins = (*y.number.shape, x.number.shape[1])  # R P Q

    def spread_over_bins(value: Tensor, axis: int) -> Tensor:
        return value.unsqueeze(axis).expand(bins).reshape(-1)

    def repeat_parents(number: Tensor) -> tuple[Tensor, Tensor]:
        """Return the parent of each child, and which of its parent's children it is."""
        total = int(number.sum())
        parents = torch.arange(len(number), device=number.device, dtype=torch.int32)
        parent = parents.repeat_interleave(number, output_size=total)
        rank = torch.arange(total, device=number.device, dtype=torch.int32)
        return parent, rank - bag_starts(number).index_select(0, parent)

    rows, columns = spread_over_bins(y.number, 2), spread_over_bins(x.number, 1)
    bin_, rank = repeat_parents(rows)
    tap = spread_over_bins(y.first, 2).index_select(0, bin_) + rank
    origin = spread_over_bins((image * height)[:, None].expand_as(y.number), 2).index_select(
        0, bin_
    )
    origin = (origin + y.cell.index_select(0, tap)) * width
    row_weight = y.weight.index_select(0, tap)

    first = spread_over_bins(x.first, 1).index_select(0, bin_)
    row, rank = repeat_parents(columns.index_select(0, bin_))
    tap = rank.add_(first.index_select(0, row))
    return Entries(
        origin.index_select(0, row).add_(x.cell.index_select(0, tap)),
        row_weight.index_select(0, row).mul_(x.weight.index_select(0, tap)),
        rows * columns,
    )


def sample_boxes(
    rois: Tensor, geometry: RoIGeometry, shape: tuple[int, int]
) -> tuple[Tensor, Samples, Samples]:
    """Return image, samples along y and samples along x of every RoI."""
    rois = rois.to(working_dtype(rois.dtype))
    low_x, low_y, high_x, high_y = (
        rois[:, 1:] * geometry.spatial_scale - (0.5 if geometry.aligned else 0.0)
    ).unbind(1)
    rest = geometry.sampling_ratio, geometry.aligned
    return (
        rois[:, 0].int(),
        sample_axis(low_y, high_y, geometry.aligned_height, shape[0], *rest),
        sample_axis(low_x, high_x, geometry.aligned_width, shape[1], *rest),
    )


def split_rois(size: Tensor) -> Iterator[slice]:
    """Cut a list of RoIs into runs of at most ``ENTRIES`` entries, or of one RoI."""
    group = torch.div(size.long().cumsum(0), ENTRIES, rounding_mode='floor')
    first = 0
    for length in torch.unique_consecutive(group, return_counts=True)[1].tolist():
        yield slice(first, first + length)
        first += length


def average_entries(
    rois: Tensor, geometry: RoIGeometry, shape: tuple[int, int]
) -> Iterator[tuple[slice, Entries]]:
    """Yield the sparse matrix of the average, some RoIs at a time."""
    image, along_y, along_x = sample_boxes(rois, geometry, shape)
    y, x = axis_taps(along_y, shape[0]), axis_taps(along_x, shape[1])
    for part in split_rois(y.number.sum(1) * x.number.sum(1)):
        # ``cell`` and ``weight`` stay whole: ``first`` points into them.
        yield (
            part,
            outer_entries(
                image[part],
                y._replace(number=y.number[part], first=y.first[part]),
                x._replace(number=x.number[part], first=x.first[part]),
                shape,
            ),
        )


def to_rows(feature: Tensor) -> Tensor:
    """Return one row of channels per cell; no copy where the map is channels_last float32."""
    feature = feature.to(working_dtype(feature.dtype))
    return feature.permute(0, 2, 3, 1).reshape(-1, feature.shape[1])  # BHW C


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Pool RoIs into ``output``, with the calling convention of compiled mmcv.

    Args:
        input: (images, channels, height, width) feature map.
        rois: (RoIs, 5) image, x1, y1, x2, y2.
        output: (RoIs, channels, aligned_height, aligned_width), overwritten.
        argmax_y: like ``output`` in mode 0: where the largest sample lies; overwritten.
        argmax_x: likewise.
        aligned_height: bins along y.
        aligned_width: bins along x.
        spatial_scale: cells per unit of ``rois``.
        sampling_ratio: samples per bin and axis; 0: one per cell spanned.
        pool_mode: 0 takes the largest sample of a bin, 1 the average.
        aligned: pixel centres lie at half-integers.
    """
    geometry = RoIGeometry(
        aligned_height, aligned_width, spatial_scale, sampling_ratio, pool_mode, aligned
    )
    if not output.numel():
        return
    if pool_mode == 0:
        pool_maximum(input, rois, geometry, output, argmax_y, argmax_x)
    elif torchvision.can_run('roi_align', input):
        torchvision.roi_align(input, rois, geometry, output)
    else:
        table = to_rows(input)
        for part, matrix in average_entries(rois, geometry, (input.shape[2], input.shape[3])):
            rows = sum_rows(table, matrix)
            output[part] = rows.view(-1, aligned_height, aligned_width, input.shape[1]).permute(
                0, 3, 1, 2
            )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of ``roi_align_forward`` to ``grad_input``; arguments as there."""
    geometry = RoIGeometry(
        aligned_height, aligned_width, spatial_scale, sampling_ratio, pool_mode, aligned
    )
    if not grad_output.numel() or not grad_input.numel():
        return
    if pool_mode == 0:
        pool_maximum_backward(grad_output, rois, argmax_y, argmax_x, grad_input)
        return
    if torchvision.can_run('roi_align', grad_output):
        torchvision.roi_align_backward(grad_output, rois, geometry, grad_input)
        return
    channels, height, width = grad_input.shape[1:]
    table = to_rows(grad_output)  # RPQ C
    bins = aligned_height * aligned_width
    rows_of = grad_input.permute(0, 2, 3, 1)  # B H W C
    for part, matrix in average_entries(rois, geometry, (height, width)):
        touched, rows = sum_rows_transposed(table[part.start * bins : part.stop * bins], matrix)
        column = touched % width
        row = torch.div(touched, width, rounding_mode='floor')
        image = torch.div(row, height, rounding_mode='floor')
        # A cell occurs once in a piece, so plain assignment adds correctly.
        at = image.long(), (row % height).long(), column.long()
        rows_of[at] = rows_of[at] + rows.to(grad_input.dtype)


def pool_maximum(
    input: Tensor,
    rois: Tensor,
    geometry: RoIGeometry,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
) -> None:
    """Write the largest bilinear sample of each bin and channel, and where it lies."""
    shape = input.shape[2], input.shape[3]
    table = to_rows(input)
    image, y, x = sample_boxes(rois, geometry, shape)
    # RoIs that take the same grid of samples are done together, so none is padded.
    grids, group = (y.number.long() * (MOST_SAMPLES + 1) + x.number.long()).unique(
        return_inverse=True
    )
    for label, grid in enumerate(grids.tolist()):
        rows, columns = divmod(grid, MOST_SAMPLES + 1)
        these = (group == label).nonzero()[:, 0]
        if not rows or not columns:
            output[these], argmax_y[these], argmax_x[these] = LOWEST, -1, -1
            continue
        samples = rows * columns * geometry.aligned_height * geometry.aligned_width
        for part in these.split(max(1, SAMPLED // (samples * (input.shape[1] + 16)))):
            along = [
                Samples(
                    value.place[part, :, :most], value.inside[part, :, :most], value.number[part]
                )
                for value, most in ((y, rows), (x, columns))
            ]
            results = pool_maximum_of_group(table, image[part], along[0], along[1], shape)
            for buffer, result in zip((output, argmax_y, argmax_x), results, strict=True):
                buffer[part] = result.permute(0, 3, 1, 2).to(buffer.dtype)


def pool_maximum_of_group(
    table: Tensor, image: Tensor, y: Samples, x: Samples, shape: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ``pool_maximum`` of RoIs that take the same number of samples.

    Returns:
        value, y and x, each (RoIs, bins along y, bins along x, channels).
    """

    def to_grid(along_y: Tensor, along_x: Tensor) -> tuple[Tensor, Tensor]:
        return along_y[:, :, None, :, None], along_x[:, None, :, None, :]  # R P Q N M

    height, width = shape
    corners_y, corners_x = bilinear_corners(y.place, height), bilinear_corners(x.place, width)
    inside_y, inside_x = to_grid(y.inside, x.inside)
    cell, weight = [], []
    for cell_y, share_y in ((corners_y[0], 1 - corners_y[2]), (corners_y[1], corners_y[2])):
        for cell_x, share_x in ((corners_x[0], 1 - corners_x[2]), (corners_x[1], corners_x[2])):
            row, column = to_grid(cell_y, cell_x)
            cell.append((image.view(-1, 1, 1, 1, 1) * height + row) * width + column)
            row, column = to_grid(share_y, share_x)
            weight.append(row * column * (inside_y & inside_x))
    grid = cell[0].shape
    value = sum_rows(
        table,
        Entries(
            torch.stack(cell, -1).flatten(),
            torch.stack(weight, -1).flatten().to(table.dtype),
            cell[0].new_full((cell[0].numel(),), 4),
        ),
    )
    value, best = value.view(*grid[:3], -1, table.shape[1]).max(3)  # R P Q C
    row, column = (
        place.expand(grid).flatten(3).gather(3, best) for place in to_grid(y.place, x.place)
    )
    found = value > LOWEST
    nowhere = row.new_tensor(-1)
    return value.clamp(min=LOWEST), row.where(found, nowhere), column.where(found, nowhere)


def pool_maximum_backward(
    grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor
) -> None:
    """Send the gradient of each bin to the four cells about its largest sample."""
    channels, height, width = grad_input.shape[1:]
    dtype = working_dtype(grad_output.dtype)
    y, x, grad = (value.to(dtype) for value in (argmax_y, argmax_x, grad_output))
    inside = (argmax_y != -1) & (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    plane = plane[:, :, None, None]  # R C 1 1
    total = torch.zeros(grad_input.numel(), device=grad.device, dtype=dtype)
    lower_y, upper_y, share_y = bilinear_corners(y, height)
    lower_x, upper_x, share_x = bilinear_corners(x, width)
    for row, part_y in ((lower_y, 1 - share_y), (upper_y, share_y)):
        for column, part_x in ((lower_x, 1 - share_x), (upper_x, share_x)):
            index = (plane * height + row) * width + column
            total.index_add_(0, index.flatten(), (grad * inside * part_y * part_x).flatten())
    grad_input.add_(total.view(grad_input.shape).to(grad_input.dtype))
