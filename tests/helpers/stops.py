"""Two processes of which one meets what is wrong: run for test_numbers.py.

Each writes what ended its trainings.
"""

import json
import math
import os
import sys
from pathlib import Path

import torch.distributed as dist

from helpers import toys
from mmresnest.engine.distributed import leave_process_group
from mmresnest.errors import UserError

DISTRIBUTED = dict(
    launcher='pytorch',
    cfg=dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None)),
)


def trained(work, rows, hook, losses=None, epochs=2, **more):
    runner = toys.build(
        work,
        rows,
        [hook],
        batch_size=1,
        model=dict(losses=losses or {}),
        loop=dict(by_epoch=True, max_epochs=epochs),
        **DISTRIBUTED,
        **more,
    )
    said = ''
    try:
        runner.train()
    except UserError as error:
        said = str(error)
    return dict(
        said=said,
        iteration=runner.iter,
        finite=all(bool(value.isfinite().all()) for value in runner.model.state_dict().values()),
    )


def main():
    folder = Path(sys.argv[1])
    dist.init_process_group('gloo')
    rank = dist.get_rank()
    rows = toys.pictures(folder / f'images{rank}')
    rows = [dict(row, img_path=row['img_path'].replace(f'images{rank}', 'images1')) for row in rows]
    dist.barrier()
    check = dict(type='mmresnest.CheckNumbers')
    bad = {3: math.nan} if rank else {}
    found = dict(
        loss=trained(folder / 'loss', rows, check, bad),
        skipped=trained(folder / 'skipped', rows, dict(check, action='skip'), bad),
    )
    if rank:  # its images are those of odd numbers
        for number in (1, 3):
            os.unlink(rows[number]['img_path'])
    dist.barrier()
    skip = dict(type='mmresnest.SkipBadImages', limit=1)
    found['images'] = trained(folder / 'images', rows, skip, epochs=4)
    found['images']['lines'] = len(toys.record(folder / 'images'))
    (folder / f'{rank}.json').write_text(json.dumps(found))
    leave_process_group()


if __name__ == '__main__':
    main()
