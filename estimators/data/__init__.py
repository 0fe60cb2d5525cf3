"""Examples: digits, folders of images, arrays, data sets and loaders as fixed tensors in a fixed order."""

from ._load import DataList, Examples, data_settings, list_data, load_data
from ._store import remapped

__all__ = [
    "DataList",
    "Examples",
    "data_settings",
    "list_data",
    "load_data",
    "remapped",
]
