"""What is asked of the reading of a data folder."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..errors import UserError
from .formats.split import Division
from .mask_mapping import MaskMapping


@dataclass(frozen=True)
class DataRequest:
    """A data folder, and how it is to be read.

    Attributes:
        path: the folder.
        mapping: what the values of its masks stand for, where they are no class indices.
        format: the name of its format, see :data:`.formats.table.FORMATS`; by default it is
            recognized.
        division: how a validation part is made; by default the folder must have one.
    """

    path: str | os.PathLike
    mapping: MaskMapping | None = None
    format: str | None = None
    division: Division | None = None

    @classmethod
    def parse(
        cls,
        path: str | os.PathLike | None,
        mask_values: str | None = None,
        data_format: str | None = None,
        split: str | float | None = None,
    ) -> DataRequest | None:
        """Read what the command line says; None without ``--data``.

        Raises:
            UserError: an option that cannot be read, or one without a folder.
        """
        options = {'--mask-values': mask_values, '--format': data_format, '--split': split}
        given = [name for name, value in options.items() if value is not None]
        if path is None:
            if given:
                raise UserError(
                    f'{given[0]} says how --data DIR is read; give both', code='option.conflict'
                )
            return None
        return cls(
            path,
            None if mask_values is None else MaskMapping.parse(mask_values),
            data_format,
            None if split is None else Division.parse(split),
        )
