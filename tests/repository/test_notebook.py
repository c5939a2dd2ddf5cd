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


def test_there_is_one():
    assert [path.stem for path in NOTEBOOKS] == ['first_hour']


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_stored_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in code_of(notebook):
        assert cell.outputs == [] and cell.execution_count is None and not cell.metadata
    assert '/home/' not in path.read_text(encoding='utf-8')


@pytest.mark.slow
@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_from_top_to_bottom(path, tmp_path):
    """In a kernel of its own, in an empty folder; a cell that raises raises here."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name='python3',
        resources={'metadata': {'path': str(tmp_path)}},
    ).execute()
    pictures = [cell for cell in code_of(notebook) if 'image/png' in shown(cell)]
    assert len(pictures) == 4  # data, curves, predictions beside the truth, one prediction
    said = ''.join(
        output.text
        for cell in notebook.cells
        for output in cell.get('outputs', ())
        if output.output_type == 'stream'
    )
    assert 'Warning' not in said and 'WARNING' not in said
    [scores] = [
        output
        for cell in code_of(notebook)
        if 'tested.metrics' in cell.source
        for output in cell.outputs
        if output.output_type == 'execute_result'
    ]
    assert "'coco/bbox_mAP'" in scores.data['text/plain']
    assert (tmp_path / 'first_hour' / 'run' / 'iter_40.pth').is_file()
