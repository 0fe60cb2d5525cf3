"""What was computed once and can be loaded: keys, calls and the sealed store behind them."""

from ._calls import (
    MISSING,
    CacheInfo,
    arithmetic,
    cache_info,
    cached_call,
    check_memory,
    clear_cache,
    default_cache_folder,
    discard,
    is_cached,
    keep,
    machinery,
    recall,
    reduce_cache,
    working_folder,
)
from ._identity import describe_callable, describe_module, fingerprint
from ._store import decode as unseal
from ._store import encode as seal

__all__ = [
    "MISSING",
    "CacheInfo",
    "arithmetic",
    "cache_info",
    "cached_call",
    "check_memory",
    "clear_cache",
    "default_cache_folder",
    "describe_callable",
    "describe_module",
    "discard",
    "fingerprint",
    "is_cached",
    "keep",
    "machinery",
    "recall",
    "reduce_cache",
    "seal",
    "unseal",
    "working_folder",
]
