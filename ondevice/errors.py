"""Every error that ondevice raises on purpose. Each message says what happened and what to do next.

::

    OndeviceError
    ├── UsageError              asked for what makes no sense (exit code 2)
    ├── ConfigError             a setting in file or environment is wrong (exit code 2)
    ├── ModelError
    │   ├── ModelNotFound       no such model in the catalogue or on disk
    │   ├── ModelFileError      the file is not a GGUF that can be used: truncated, damaged, foreign
    │   │   └── ModelChanged    it was changed or replaced while in use; to load it again helps
    │   ├── DownloadError       a model could not be fetched; what was fetched is kept for a resume
    │   ├── DownloadCancelled   a download was cancelled
    │   ├── PackCancelled       a packing was cancelled; what is done is kept
    │   └── DiskSpaceError      not enough free disk for what was asked
    ├── MemoryShortError        the model does not fit in the RAM that is available
    ├── ContextError            the last message alone does not fit the context
    ├── EngineError
    │   ├── LoadCancelled       a load was cancelled; no model is loaded
    │   ├── EngineDied          the engine process ended by itself: abort, segfault, out of memory
    │   └── NativeError         llama.cpp refused; the native layer or its version is at fault
    └── StoreError              the private store could not be opened, read or written
        ├── StoreLocked         its passphrase is missing or wrong
        └── StoreUnwritable     a change could not be written: a full disk, another program
"""

from __future__ import annotations


class OndeviceError(Exception):
    """Base of the tree above.

    ``str(error)`` is one or two plain sentences for the user: what happened, what to do next.
    """

    exit_code = 1


class UsageError(OndeviceError):
    exit_code = 2


class ConfigError(OndeviceError):
    exit_code = 2


class ModelError(OndeviceError):
    pass


class ModelNotFound(ModelError):
    pass


class ModelFileError(ModelError):
    pass


class ModelChanged(ModelFileError):
    pass


class DownloadError(ModelError):
    pass


class DownloadCancelled(DownloadError):
    def __init__(self, message: str = "The download was cancelled.") -> None:
        super().__init__(message)


class PackCancelled(ModelError):
    def __init__(self, message: str = "Packing was cancelled.") -> None:
        super().__init__(message)


class DiskSpaceError(ModelError):
    pass


class MemoryShortError(OndeviceError):
    pass


class ContextError(OndeviceError):
    def __init__(self, message: str, tokens: int = 0) -> None:
        super().__init__(message)
        self.tokens = tokens  # of the prompt, as far as they were counted; 0: not known


class EngineError(OndeviceError):
    pass


class LoadCancelled(EngineError):
    def __init__(self, message: str = "Loading was cancelled.") -> None:
        super().__init__(message)


class EngineDied(EngineError):
    pass


class NativeError(EngineError):
    pass


class StoreError(OndeviceError):
    pass


class StoreLocked(StoreError):
    pass


class StoreUnwritable(StoreError):
    pass


#: Class name → class, for errors that cross the pipe from the engine process.
BY_NAME: dict[str, type[OndeviceError]] = {
    cls.__name__: cls
    for cls in (
        OndeviceError,
        UsageError,
        ConfigError,
        ModelError,
        ModelNotFound,
        ModelFileError,
        ModelChanged,
        DownloadError,
        DownloadCancelled,
        PackCancelled,
        DiskSpaceError,
        MemoryShortError,
        ContextError,
        EngineError,
        LoadCancelled,
        EngineDied,
        NativeError,
        StoreError,
        StoreLocked,
        StoreUnwritable,
    )
}
