"""What goes in, part one: timm names and checkpoint files turned into modules.

A checkpoint is looked into without running anything in it (`_pickle`, `_files`), its weights are chosen among what else
it holds (`_entries`), what wrappers put into the names is taken out (`_names`), and the rest is fitted to a model
(`_fit`). Nothing but :class:`CheckpointError`, one sentence long, leaves the reader.
"""

from ._build import count_parameters, load_model, takes_image_size, trainable_names, with_provenance
from ._errors import CheckpointError
from ._fit import compatible_state_dict
from ._read import CheckpointInfo, clean_state_dict, describe_checkpoint, read_checkpoint
from ._write import read_metadata, save_checkpoint

__all__ = [
    "CheckpointError",
    "CheckpointInfo",
    "clean_state_dict",
    "compatible_state_dict",
    "count_parameters",
    "describe_checkpoint",
    "load_model",
    "read_checkpoint",
    "read_metadata",
    "save_checkpoint",
    "takes_image_size",
    "trainable_names",
    "with_provenance",
]
