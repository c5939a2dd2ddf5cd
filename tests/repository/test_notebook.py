"""examples/: notebooks are stored without outputs and run from top to bottom."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / 'examples').glob('*.ipynb'))

# jupyter_client warns of its own future, and pyzmq of the event loop of Windows
pytestmark = pytest.mark.filterwarnings('ignore')


def code_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == 'code']


def shown(cell: nbformat.NotebookNode) -> set[str]:
    """The kinds of what a cell shows."""
    return {kind for output in cell.outputs for kind in output.get('data', {})}


def test_those_that_are_there():
    assert [path.stem for path in NOTEBOOKS] == ['first_hour', 'yolo_to_model']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in code_of(notebook):
        assert cell.outputs == [] and cell.execution_count is None and not cell.metadata
    assert '/home/' not in path.read_text(encoding='utf-8')


def run_notebook(name, folder):
    """Run a notebook in a kernel of its own, in an empty folder; a cell that raises raises here."""
    notebook = nbformat.read(ROOT / 'examples' / f'{name}.ipynb', as_version=4)
    NotebookClient(
        notebook, timeout=300, kernel_name='python3', resources={'metadata': {'path': str(folder)}}
    ).execute()
    said = ''.join(
        output.text
        for cell in notebook.cells
        for output in cell.get('outputs', ())
        if output.output_type == 'stream'
    )
    assert 'Warning' not in said and 'WARNING' not in said
    return notebook


def read_result(notebook, words):
    """Return the text of what the cell with these words gives."""
    [result] = [
        output
        for cell in code_of(notebook)
        if words in cell.source
        for output in cell.outputs
        if output.output_type == 'execute_result'
    ]
    return result.data['text/plain']


@pytest.mark.slow
def test_the_first_hour(tmp_path):
    notebook = run_notebook('first_hour', tmp_path)
    pictures = [cell for cell in code_of(notebook) if 'image/png' in shown(cell)]
    assert len(pictures) == 4  # data, curves, predictions beside the truth, one prediction
    assert "'coco/bbox_mAP'" in read_result(notebook, 'tested.metrics')
    assert (tmp_path / 'first_hour' / 'run' / 'iter_40.pth').is_file()


@pytest.mark.slow
def test_from_yolo_to_a_shared_model(tmp_path):
    pytest.importorskip('huggingface_hub')
    notebook = run_notebook('yolo_to_model', tmp_path)
    folder = tmp_path / 'yolo_to_model'
    page = (folder / 'compared.html').read_text(encoding='utf-8')
    assert all(f'{arch}</' in page for arch in ('resnest14', 'legacy_seresnext26_32x4d'))
    assert read_result(notebook, 'predict_exported').startswith('(4, ')
    files = {path.name for path in (folder / 'shared').iterdir()}
    assert {'README.md', 'config.py', 'best_model.pth'} <= files
    assert any('image/jpeg' in shown(cell) for cell in code_of(notebook))
