"""Metadata of mmresnest. Nothing here imports torch, an mm library or mmresnest itself."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def version() -> str:
    """The version, from the text of mmresnest/version.py."""
    text = (ROOT / 'mmresnest' / 'version.py').read_text(encoding='utf-8')
    return re.search(r"^__version__ = '([^']+)'", text, re.MULTILINE).group(1)


# What every use needs. No mm library is among it: two distributions provide each of them under the
# same import name, and would overwrite each other's files. What training, pictures and the
# embedded data set need beyond these two (OpenCV, Pillow, matplotlib, pycocotools, tqdm, rich)
# comes with either stack; asking for opencv-python here would put it beside a headless one.
REQUIRES = [
    'torch>=2.1',  # the oldest with a compiled mmcv that mmdet 3 accepts; tested: constraints/
    'numpy>=1.23',
]
EXTRAS = {
    # The maintained forks: numpy 2, Python 3.12, torch of today.
    'onedl': [
        'onedl-mmengine>=0.10.12,<0.11',
        'onedl-mmcv>=2.3.6,<3',
        'onedl-mmdetection>=3.5.1,<4',
        'onedl-mmsegmentation>=1.4.2,<2',
    ],
    # The last releases of OpenMMLab. mmcv-lite has no compiled operators, so it installs anywhere;
    # whoever has a compiled mmcv installs mmresnest without this extra.
    'openmmlab': [
        'mmengine>=0.10.7,<0.11',
        'mmcv-lite>=2.1,<2.2',  # mmdet 3.3 and mmseg 1.2 refuse 2.2
        'mmdet>=3.3,<3.4',
        'mmsegmentation>=1.2.2,<1.3',
        'ftfy>=6',
        'regex',  # mmsegmentation imports both and names neither
    ],
    # --arch timm/NAME: any network of timm that gives maps. It imports torchvision, which has to be
    # the one built for the torch that is installed. 1.0 names the layout of maps (B H W C in Swin).
    'timm': ['timm>=1.0', 'torchvision>=0.16'],
    'safetensors': ['safetensors>=0.4'],  # checkpoints in that format
    'fast-eval': ['faster-coco-eval>=1.7'],  # --fast-eval: COCO's scores, several times faster
    # mmresnest report: one page with interactive figures (plotly brings the script that draws them,
    # so that the page fetches none), filled in by a template engine that escapes what it is given;
    # COCO's scores of 5,000 images take 8 s instead of a minute.
    'report': ['plotly>=6', 'jinja2>=3.1', 'faster-coco-eval>=1.7'],
    # mmresnest sweep: Optuna chooses and prunes. Its journal is a file, which on a shared drive
    # serves several machines, so that no Ray with a cluster of its own is needed. From 5 on a
    # sampler can be seeded by the number of its trial. The page is made as that of a report.
    'sweep': ['optuna>=5', 'plotly>=6', 'jinja2>=3.1'],
    # mmresnest push and pull, by the hub's own library; its HTTP client changed with 2.
    'hub': ['huggingface_hub>=2'],
    # mmresnest export --format onnx: onnxscript is what torch's exporter writes with, onnxruntime
    # runs every file at once; and mmresnest predict --model, which needs onnxruntime alone.
    'onnx': ['onnx>=1.16', 'onnxscript>=0.3', 'onnxruntime>=1.18'],
    # --format openvino, which converts what the former write; nncf is its quantiser.
    'openvino': ['onnx>=1.16', 'onnxscript>=0.3', 'openvino>=2024.4'],
    'openvino-int8': ['onnx>=1.16', 'onnxscript>=0.3', 'openvino>=2024.4', 'nncf>=2.13'],
    # --logger: one of them is enough
    'tensorboard': ['tensorboard>=2.15'],
    'wandb': ['wandb>=0.16'],
    'mlflow': ['mlflow>=2.14'],  # pictures by steps; tested: 3.17
    # predict --track: ByteTrack, which supervision had until 0.31 and its authors moved to
    # trackers. It asks for opencv-python, which both stacks bring.
    'track': ['trackers>=2.6'],
    # mmresnest completion: shtab writes scripts that the shells read, so that Tab starts no Python.
    # argcomplete would start Python at every Tab. 1.13 has fish.
    'completion': ['shtab>=1.13'],
    # make docs: a site of the Markdown below docs/, and of the docstrings, which mkdocstrings reads
    # without importing what they are of. MkDocs 2 has neither plugins nor hooks.
    'docs': ['mkdocs>=1.6,<2', 'mkdocs-material>=9.5,<10', 'mkdocstrings[python]>=0.26'],
    'dev': [
        'safetensors>=0.4',
        'faster-coco-eval>=1.7',
        'plotly>=6',
        'jinja2>=3.1',
        'optuna>=5',
        'huggingface_hub>=2',
        'tensorboard>=2.15',
        'onnx>=1.16',
        'onnxscript>=0.3',
        'onnxruntime>=1.18',
        'openvino>=2024.4',
        'mkdocs>=1.6,<2',
        'mkdocs-material>=9.5,<10',
        'mkdocstrings[python]>=0.26',
        'shtab>=1.13',
        'trackers>=2.6',
        'nbclient>=0.10',
        'ipykernel>=6.29',  # tests run examples/, as a notebook is run
        'build>=1.2',  # tools/check_install.py and RELEASING.md
        'pytest>=8',
        'pytest-xdist>=3.6',  # one test process a core
        'hypothesis>=6.100',
        'ruff>=0.6',
        'codespell>=2.3',
        'mypy>=1.11',
        'setuptools>=64',
        'wheel',  # tests/repository/test_package.py builds without fetching anything
    ],
}

setup(
    name='mmresnest',
    version=version(),
    description='ResNeSt, Res2Net, SE-ResNeXt and ResNeXt as one residual trunk, '
    'for MMDetection and MMSegmentation',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='The mmresnest authors',
    license='Apache-2.0',
    license_files=['LICENSE'],
    keywords='resnest res2net senet resnext mmdetection mmsegmentation object-detection '
    'semantic-segmentation pytorch',
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3 :: Only',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    packages=find_packages(include=['mmresnest', 'mmresnest.*']),
    # What is in .mim are links to folders and a file at the top: an editable install reads those
    # themselves, a wheel and an sdist carry copies. mim and mmengine look for models there.
    package_data={
        'mmresnest': [
            'py.typed',
            'report/templates/*',
            'inference/page/static/*',
            '.mim/model-index.yml',
            '.mim/configs/metafile.yml',
            '.mim/configs/**/*.py',
            '.mim/tools/*',
        ]
    },
    python_requires='>=3.10',
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={'console_scripts': ['mmresnest=mmresnest.cli.main:main']},
)
