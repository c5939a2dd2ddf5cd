"""Run the parts within the time, each in processes of its own, and write what they found.

A failure on a GPU may leave its process useless: after a device-side assertion every further call
fails. So each part runs in a process, which records each item as it begins and as it ends. Where a
process dies or takes too long, its item is recorded as such, and another process goes on behind it.
Time that one part leaves is the next one's.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from operator import methodcaller
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...utils.files import write_whole
from ...utils.threads import count_processors
from .items import CheckFailed, CheckPlan, Item, ItemRun, LeftOut, Part, release_memory
from .page import format_page

GRACE = 5.0
"""Seconds that an item may go on beyond its time before its process is ended."""
TIME_OVER = 'the time was over'
RECORDS, LOG, FIGURES, PAGE = 'records.jsonl', 'log.txt', 'gpu_check.json', 'gpu_check.md'


def check_gpu(plan: CheckPlan, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Run all parts, and write ``gpu_check.json`` and ``gpu_check.md`` into the folder.

    Args:
        plan: what is checked, and where.
        say: is called with the progress.

    Returns:
        what the json holds; ``failed`` is the number of equality checks that failed.

    Raises:
        UserError: there is no GPU, torch is too old, or the folder cannot be made.
    """
    check_device(plan)
    make_folder(plan.out)
    start = time.monotonic()
    result: dict[str, Any] = dict(
        device=plan.device, toy=plan.toy, data=plan.data, budget=plan.budget, machine={}, items=[]
    )
    share = 0.0
    for part in plan.parts:
        say(f'{part.name}:')
        share += part.share
        run_part(plan, part, start + share * plan.budget, say)
        result.update(collect_records(plan.out / RECORDS), seconds=time.monotonic() - start)
        write_results(plan.out, result)
    (plan.out / RECORDS).unlink(missing_ok=True)
    return result


def check_device(plan: CheckPlan) -> None:
    """Refuse where nothing can be checked.

    Raises:
        UserError: no CUDA device, or a torch older than 2.4.
    """
    import torch

    if plan.device.startswith('cuda') and not torch.cuda.is_available():
        built = 'is built without CUDA' if torch.version.cuda is None else 'sees no CUDA device'
        raise UserError(
            f'--gpu-check: torch {torch.__version__} {built}; run it on a machine with an NVIDIA '
            'GPU, or add --toy to try the check itself on the CPU',
            code='device.missing',
        )
    if tuple(map(int, torch.__version__.split('.')[:2])) < (2, 4):
        raise UserError(
            f'--gpu-check takes torch 2.4 or newer, and this is {torch.__version__}; update it',
            code='package.too-old',
        )


def make_folder(out: Path) -> None:
    """Make the folder of the results.

    Raises:
        UserError: it exists, or cannot be made.
    """
    try:
        out.mkdir(parents=True)
    except FileExistsError:
        raise UserError(
            f'--gpu-check {out}: it exists already; name a new folder', code='option.exists'
        ) from None
    except OSError as error:
        raise UserError(
            f'--gpu-check {out}: the folder cannot be made: {error.strerror}; name another',
            code='file.unwritable',
        ) from error


def run_part(plan: CheckPlan, part: Part, until: float, say: Callable[[str], None]) -> None:
    """Run the items of a part until they are done or the time is."""
    context = multiprocessing.get_context('spawn')
    records = Records(plan.out / RECORDS)
    records.read_new()
    while True:
        begun = len(records.begun)
        done = [item for of, item in records.begun if of == part.name]
        process = context.Process(target=serve_part, args=(plan, part, done, until))
        process.start()
        try:
            reason = watch_process(process, records, until, say)
        finally:  # an interruption ends the process, too
            process.kill()
        if part.name in records.over:
            return
        if records.running is not None:
            item = records.running
            ItemRun(plan.out / RECORDS, part.name, item, 0.0).write_record('end', **reason)
        elif len(records.begun) == begun:  # it did not even begin: another would not, either
            ItemRun(plan.out / RECORDS, part.name, 'start', 0.0).write_record('end', **reason)
            records.read_new()
            return
        tell_records(records, say)
        if time.monotonic() > until:
            return


class Records:
    """The records of all processes, read as they come.

    Args:
        file: where they are.

    Attributes:
        begun: part and name of every item that was begun.
        running: the item that has begun and not ended.
        limit: when that has to end, by ``time.monotonic``.
        over: the parts that a process came to the end of.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.place = file, 0
        self.begun: list[tuple[str, str]] = []
        self.running: str | None = None
        self.limit = float('inf')
        self.over: set[str] = set()

    def read_new(self) -> list[dict[str, Any]]:
        """Return the records since the last call."""
        if not self.file.exists():
            return []
        with open(self.file, encoding='utf-8') as file:
            file.seek(self.place)
            text = file.read()
        whole = text.rpartition('\n')[0]
        self.place += len(whole.encode()) + bool(whole)
        found = [json.loads(line) for line in whole.splitlines()]
        for record in found:
            if record['event'] == 'begin':
                self.begun.append((record['part'], record['item']))
                self.running, self.limit = record['item'], record['limit']
            elif record['event'] == 'end':
                self.running, self.limit = None, float('inf')
            elif record['event'] == 'over':
                self.over.add(record['part'])
        return found


def watch_process(
    process: Any, records: Records, until: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Wait for a process, and end it where an item, or the part, takes too long.

    Returns:
        status and reason of the item that was running when it ended.
    """
    ended = False
    while process.is_alive():
        process.join(0.2)
        tell_records(records, say)
        now = time.monotonic()
        if now > min(records.limit, until) + GRACE and process.is_alive():
            process.kill()
            process.join()
            ended = True
    tell_records(records, say)
    if ended:
        return dict(status='left out', reason='it took longer than its share of the time')
    return dict(
        status='error',
        reason=f'its process died (exit status {process.exitcode}); see {LOG}',
        traceback='',
    )


def tell_records(records: Records, say: Callable[[str], None]) -> None:
    """Say which items began and ended since the last call."""
    for record in records.read_new():
        if record['event'] == 'begin':
            say(f'  {record["item"]} ...')
        elif record['event'] == 'end':
            reason = f' ({record["reason"]})' if record.get('reason') else ''
            say(f'  {record["item"]}: {record["status"]}{reason}')


def serve_part(plan: CheckPlan, part: Part, done: list[str], until: float) -> None:
    """Run the items of a part that are not done, in a process of its own."""
    log = os.open(plan.out / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):  # of libraries, too, which write to the descriptors themselves
        os.dup2(log, stream)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    module = import_module(part.module)
    file = plan.out / RECORDS
    ItemRun(file, part.name, '', until).write_record('machine', values=describe_gpu(plan))
    items: list[Item] = [item for item in module.list_items(plan) if item.name not in done]
    whole = ItemRun(file, part.name, '', until)
    whole.write_record('list', items=[item.name for item in items])
    for index, item in enumerate(items):
        if whole.left <= 0:
            break
        limit = until
        if item.weight is not None:
            weights = sum(one.weight or 0.0 for one in items[index:])
            limit = time.monotonic() + whole.left * item.weight / weights
        if not run_item(item, ItemRun(file, part.name, item.name, limit)):
            os._exit(3)  # its context may be lost, and waiting for it can take forever
    whole.write_record('over')


def run_item(item: Item, run: ItemRun) -> bool:
    """Run an item and record what came of it; return whether the device still works."""
    run.write_record('begin', limit=run.until)
    start = time.monotonic()
    try:
        found = dict(status='passed', values=item.run(run))
    except CheckFailed as failure:
        found = dict(status='failed', reason=str(failure), values=failure.values)
        found['traceback'] = traceback.format_exc()
    except LeftOut as reason:
        found = dict(status='left out', reason=str(reason))
    except Exception as error:
        first = (str(error).splitlines() or [''])[0]
        found = dict(
            status='error',
            reason=f'{type(error).__name__}: {first}',
            traceback=traceback.format_exc(),
        )
    run.write_record('end', seconds=time.monotonic() - start, **found)
    return release_memory()


def describe_gpu(plan: CheckPlan) -> dict[str, Any]:
    """Return the machine, its GPU, and which libraries compute."""
    import torch

    from ...compat.mmcv_ext import operator_sources
    from ..benchmark import describe_machine

    facts = describe_machine()
    if plan.device.startswith('cuda'):
        free, total = torch.cuda.mem_get_info()
        facts.update(
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),
            capability='.'.join(map(str, torch.cuda.get_device_capability())),
            free_gib=round(free / 2**30, 1),
            total_gib=round(total / 2**30, 1),
            bfloat16=torch.cuda.is_bf16_supported(),
        )
    facts.update(
        cores=count_processors(),
        tf32=dict(
            convolutions=torch.backends.cudnn.allow_tf32,
            products=torch.backends.cuda.matmul.allow_tf32,
        ),
    )
    try:
        facts['operators'] = operator_sources()
    except ImportError as error:
        facts['operators'] = f'mmcv: {error}'
    return facts


def collect_records(file: Path) -> dict[str, Any]:
    """Return machine and items from the records of all processes."""
    machine: dict[str, Any] = {}
    items: dict[tuple[str, str], dict[str, Any]] = {}
    lines = file.read_text(encoding='utf-8').splitlines() if file.exists() else []
    for record in map(json.loads, lines):
        event, key = record.pop('event'), (record['part'], record['item'])
        if event == 'machine':
            machine = record['values']
        elif event == 'list':
            for name in record['items']:
                items.setdefault(
                    (record['part'], name),
                    dict(part=record['part'], item=name, status='left out', reason=TIME_OVER),
                )
        elif event == 'begin':
            items[key] = dict(part=key[0], item=key[1], status='left out', reason=TIME_OVER)
        elif event == 'values':
            items[key]['values'] = record['values']
        elif event == 'end':
            values = items.get(key, {}).get('values')
            items[key] = {**({'values': values} if values else {}), **record}
    found = list(items.values())
    return dict(
        machine=machine,
        items=found,
        failed=sum(
            one['part'] == 'equality' and one['status'] in ('failed', 'error') for one in found
        ),
    )


def write_results(out: Path, result: dict[str, Any]) -> None:
    """Write the json and the page; whoever looks meanwhile sees whole files."""
    texts = {FIGURES: json.dumps(result, indent=1), PAGE: format_page(result)}
    for name, text in texts.items():
        write_whole(out / name, methodcaller('write', text.encode()))
