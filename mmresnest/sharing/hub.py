"""Push a trained model to the Hugging Face hub, and pull one from there.

What is published is what using the model takes: its weights without the state of the training, its
config without the paths of the machine, and its card. Pictures are not.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ..config.inspect import dataset_configs, model_of, task_of
from ..config.load import load_config
from ..engine import checkpoints
from ..engine.cached_predictions import predictions_file, stamp_of
from ..engine.class_order import recorded_classes
from ..engine.run_facts import installed_versions
from ..engine.trained_run import TrainedRun, resolve_run
from ..errors import UserError
from ..evaluation.predictions import Detections
from ..evaluation.predictions_file import load_results
from ..report import detection, segmentation
from ..utils.files import integrity_error, write_hashed, write_whole
from ..utils.packages import require_packages
from ..utils.run_logs import main_score, read_scalars
from .card import CardFacts, describe_versions, write_card

WEIGHTS, CONFIG, CARD = 'best_model.pth', 'config.py', 'README.md'
"""Files of a published model. A work folder with them is one as any training leaves it."""
PULLED = (CARD, CONFIG, WEIGHTS, f'{WEIGHTS}.sha256')
META = ('dataset_meta', 'epoch', 'iter', 'seed', 'mmengine_version', 'time')
"""What of a checkpoint's notes is published; the others name files of the machine."""
PRIVATE = ('command', 'work_dir', 'load_from', 'resume', 'launcher')


@dataclass(frozen=True)
class Published:
    """What was published.

    Attributes:
        address: where it can be looked at; the folder where nothing was uploaded.
        files: name -> bytes.
    """

    address: str
    files: dict[str, int]


def push(
    work_dir: str | os.PathLike,
    name: str,
    *,
    checkpoint: str | os.PathLike | None = None,
    license: str = '',
    private: bool = False,
    out: str | os.PathLike | None = None,
) -> Published:
    """Publish the model of a training.

    Args:
        work_dir: the work folder of the training.
        name: of the model on the hub, as ``someone/model``.
        checkpoint: which of the folder; by default that with the best score, else the newest.
        license: as the hub names it, such as ``apache-2.0``.
        private: make a new repository private; one that is there stays as it is.
        out: write the files into this folder, and upload nothing.

    Raises:
        UserError: the folder holds no training, or the hub does not take it.
    """
    check_name(name)
    if not Path(work_dir).expanduser().is_dir():
        raise UserError(
            f'there is no work folder {Path(work_dir).absolute()}; give what --work-dir was in '
            'training (by default work_dirs/CONFIG)',
            code='report.nothing',
        )
    run = resolve_run(work_dir, checkpoint)
    if out is not None:
        folder = Path(out).expanduser()
        with make_folder(folder) as part:
            files = _write_files(run, name, license, part)
        return Published(str(folder), files)
    token = find_token()
    if token is None:
        raise UserError(
            'the hub takes models of those who are logged in only: `hf auth login` asks for a '
            'token and keeps it, or the variable HF_TOKEN has one that may write '
            '(https://huggingface.co/settings/tokens); --out FOLDER writes the files without it',
            code='hub.no-token',
        )
    with tempfile.TemporaryDirectory(prefix='mmresnest-push-') as scratch:
        files = _write_files(run, name, license, Path(scratch))
        with explain_hub_errors(name, token):
            api = open_hub(token)
            api.create_repo(name, private=private or None, exist_ok=True)
            done = api.upload_folder(
                repo_id=name, folder_path=scratch, commit_message='A model of mmresnest'
            )
    return Published(done.commit_url.partition('/commit/')[0], files)


def pull(
    name: str, folder: str | os.PathLike | None = None, *, revision: str | None = None
) -> Path:
    """Fetch a published model into a folder that stands for a training in all commands.

    Args:
        name: of the model on the hub, as ``someone/model``.
        folder: where it goes, which must not exist; by default ``work_dirs/model``.
        revision: a branch, tag or commit of it.

    Raises:
        UserError: there is no such model, it was not published by :func:`push`, or it arrived
            damaged. Nothing is left then.
    """
    check_name(name)
    target = Path(folder or Path('work_dirs') / name.rpartition('/')[2]).expanduser()
    token = find_token()
    with make_folder(target) as part:
        with explain_hub_errors(name, token):
            open_hub(token).snapshot_download(
                name, revision=revision, local_dir=part, allow_patterns=list(PULLED)
            )
        shutil.rmtree(part / '.cache', ignore_errors=True)  # notes of the library
        _check_pulled(name, part)
    return target


@contextmanager
def make_folder(target: Path) -> Iterator[Path]:
    """Give a folder beside another one, whose place it takes once it is whole; else it goes.

    Raises:
        UserError: the other one holds something, or cannot be written.
    """
    if target.exists() and (not target.name or not target.is_dir() or any(target.iterdir())):
        raise UserError(f'{target} is there already; name a new folder', code='hub.folder')
    part = target.with_name(f'.{target.name}.{os.getpid()}.part')
    try:
        yield part
        if target.is_dir():
            target.rmdir()
        os.replace(part, target)
    except OSError as error:
        raise UserError(
            f'{target} cannot be written: {error.strerror or error}; name another folder',
            code='file.unwritable',
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_pulled(name: str, folder: Path) -> None:
    missing = [file for file in (CONFIG, WEIGHTS) if not (folder / file).is_file()]
    if missing:
        raise UserError(
            f'{name} has no {" and no ".join(missing)}: it is no model that `mmresnest push` '
            'published; fetch it with the tool that it was made for',
            code='hub.no-model',
        )
    wrong = integrity_error(folder / WEIGHTS)
    if wrong:
        raise UserError(
            f'the weights of {name} did not arrive whole, {wrong}; pull it again',
            code='checkpoint.unreadable',
        )


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a model on the hub.

    Raises:
        UserError: it cannot, or what speaks with the hub is not installed.
    """
    require_packages('the hub', 'hub', 'huggingface_hub')
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise UserError(f'{name!r} is no name on the hub: {error}', code='hub.name') from error
    if name.count('/') != 1:
        raise UserError(
            f'{name!r} is no whole name on the hub; write USER/MODEL, such as someone/{name}',
            code='hub.name',
        )


def find_token() -> str | None:
    """Return the token of whoever is logged in; it goes to the hub's library and nowhere else."""
    from huggingface_hub import get_token

    return get_token()


def open_hub(token: str | None) -> Any:
    """Return what speaks with the hub: huggingface.co, or the server that HF_ENDPOINT names."""
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get('HF_ENDPOINT'), token=token or False)


@contextmanager
def explain_hub_errors(name: str, token: str | None) -> Iterator[None]:
    """Say what is wrong where the hub refuses, or is not reached; never with the token.

    Raises:
        UserError: it does.
    """
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except (
        errors.HfHubHTTPError,
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        httpx2.TransportError,
    ) as error:
        # A download that is refused looks for its files on the disk, and then misses those.
        found = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else error
        told = _hide_token(error, token)
        if isinstance(found, (errors.RepositoryNotFoundError, errors.RevisionNotFoundError)):
            seen = 'this token may not see it' if token else 'nobody is logged in who may see it'
            raise UserError(
                f'the hub has no {name} (or no such revision), or {seen}; correct the name, or log '
                'in with `hf auth login`',
                code='hub.not-found',
            ) from told
        status = found.response.status_code if isinstance(found, errors.HfHubHTTPError) else 0
        if status in (401, 403):
            raise UserError(
                f'the hub refuses {name} with status {status}: the token is not valid, or may not '
                'do this; make one with the right to write at '
                'https://huggingface.co/settings/tokens, and check the name before the slash',
                code='hub.refused',
            ) from told
        where = os.environ.get('HF_ENDPOINT') or 'huggingface.co'
        raise UserError(
            f'{where} answers with status {status}; try again later'
            if status
            else f'{where} cannot be reached; check the network, HF_ENDPOINT and HF_HUB_OFFLINE, '
            'and try again',
            code='hub.unreachable',
        ) from told


def _hide_token(error: Exception, token: str | None) -> Exception:
    """Return an error whose text does not have the token, as --debug shows it."""
    text = str(error)
    return RuntimeError(text.replace(token, '***')) if token and token in text else error


def _write_files(run: TrainedRun, name: str, license: str, folder: Path) -> dict[str, int]:
    """Write what is published of a run into a folder."""
    import torch

    assert run.folder is not None
    cfg = load_config(run.config)
    content = checkpoints.read_checkpoint(run.checkpoint)
    kept = {key: one for key, one in (content.get('meta') or {}).items() if key in META}
    folder.mkdir(parents=True, exist_ok=True)
    slim = dict(state_dict=content['state_dict'], meta=kept)
    write_hashed(folder / WEIGHTS, lambda file: torch.save(slim, file))
    text = hide_paths(cfg).pretty_text
    write_whole(folder / CONFIG, lambda file: file.write(text.encode()))
    card = write_card(collect_facts(run, cfg, content, name, license))
    write_whole(folder / CARD, lambda file: file.write(card.encode()))
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def hide_paths(cfg: Config) -> Config:
    """Return a config without what tells of the machine: absolute paths become their last part."""

    def convert(node: Any) -> Any:
        if isinstance(node, Mapping):
            # Names of classes may look like paths: those of Open Images are /m/01g317 and such.
            return {key: one if key == 'classes' else convert(one) for key, one in node.items()}
        if isinstance(node, (list, tuple)):
            return type(node)(convert(one) for one in node)
        if isinstance(node, str) and os.path.isabs(os.path.expanduser(node)):
            return os.path.basename(node.rstrip('/')) + '/' * node.endswith('/')
        return node

    shown = {key: one for key, one in cfg.to_dict().items() if key not in PRIVATE}
    return Config(convert(shown))


def collect_facts(
    run: TrainedRun, cfg: Config, content: Mapping[str, Any], name: str, license: str
) -> CardFacts:
    """Return what the card of a run tells."""
    assert run.folder is not None
    model = model_of(cfg)
    backbone = model.get('backbone') or {}
    network = ' '.join(
        str(part)
        for part in (model.get('type'), 'with', backbone.get('type'), backbone.get('arch') or '')
    ).strip()
    classes = list(recorded_classes(content) or ())
    if not classes and cfg.get('val_dataloader'):
        meta = dataset_configs(cfg.val_dataloader.dataset)[0].get('metainfo') or {}
        classes = list(meta.get('classes') or ())
    meta = content.get('meta') or {}
    scores, where = find_scores(run, meta)
    loader = cfg.get('train_dataloader') or {}
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    facts = {
        'config': Path(str(run.config)).stem,
        'checkpoint': where,
        'images at once': str(loader.get('batch_size', 'not told')),
        'optimizer': str(optimizer.get('type', 'not told')),
        'learning rate': str(optimizer.get('lr', 'not told')),
        'seed': str(meta.get('seed', 'not set')),
        'versions': describe_versions(installed_versions()),
    }
    by_class = find_class_scores(run, cfg, len(classes))
    return CardFacts(name, task_of(cfg), network, classes, scores, by_class, facts, license)


def find_scores(run: TrainedRun, meta: Mapping[str, Any]) -> tuple[dict[str, float], str]:
    """Return the scores of the validation that a checkpoint had, and which one that was.

    Args:
        run: whose log is read.
        meta: the notes of its checkpoint; mmengine counts one iteration more for a best one.
    """
    assert run.folder is not None
    curves = read_scalars(run.folder)
    main = main_score(curves.scores)
    named = re.search(r'iter_(\d+)$', run.checkpoint.stem)
    written = int(named[1] if named else meta.get('iter', 0))
    # A validation is logged beside the last iteration that was logged before it.
    steps = {at for x, _ in curves.losses.values() for at in x if at <= written}
    at = max(steps, default=-1)
    if main is None or at not in curves.scores[main][0]:
        return {}, run.checkpoint.name
    validations = curves.scores[main][0]
    scores = {name: y[x.index(at)] for name, (x, y) in curves.scores.items() if at in x}
    return scores, f'of validation {validations.index(at) + 1} of {len(validations)}'


def find_class_scores(run: TrainedRun, cfg: Config, count: int) -> dict[str, list[float]]:
    """Return the scores of each class, where a report has kept what the checkpoint predicts."""
    assert run.folder is not None
    # The training has kept those of its last checkpoint, whose weights may be the best as well.
    step = re.search(r'(epoch|iter)_\d+$', run.checkpoint.stem)
    same = run.folder / f'{step[0]}.pth' if step else run.checkpoint
    kept = None
    for path in (run.checkpoint, same):
        if kept is None and path.is_file():
            try:
                stamp = stamp_of(run.folder, cfg, Path(str(run.config)), path)
            except UserError:  # the data are elsewhere
                return {}
            kept = load_results(predictions_file(run.folder, path, stamp))
    if kept is None or len(kept[0].classes) != count:
        return {}
    results = kept[0]
    if isinstance(results, Detections):
        table = detection.compute_scores(results).precision['bbox'].by_class
        return {'AP': table[:, 0].tolist(), 'AP50': table[:, 1].tolist()}
    return {'IoU': segmentation.compute_scores(results).overlap.iou.tolist()}
