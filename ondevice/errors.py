"""Every error that ondevice raises on purpose. Each message says what happened and what to do next.

::

    OndeviceError
    ├── UsageError              asked for what makes no sense (exit code 2)
    ├── ConfigError             a setting in file or environment is wrong (exit code 2)
    ├── ModelError
    │   ├── ModelNotFound       no such model in the catalogue or on disk
    │   ├── ModelFileError      the file is not a GGUF that can be used: truncated, damaged, foreign
    │   │   └── ModelChanged    it was changed or replaced while in use; to load it again helps
    │   ├── DownloadError       a download failed; what has arrived is kept for the next try
    │   ├── DownloadCancelled   a download was cancelled
    │   ├── PackCancelled       a packing was cancelled; what is done is kept
    │   └── DiskSpaceError      not enough free disk for what was asked
    ├── NotFound                there is no such chat, memory or import here
    ├── FileError               a file cannot be read or written, or is not what it should be
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
    """What was asked makes no sense. A command ends with exit code 2."""

    exit_code = 2


class ConfigError(OndeviceError):
    """A setting in a file or in the environment is wrong. A command ends with exit code 2."""

    exit_code = 2


class ModelError(OndeviceError):
    """Something is wrong with a model or its file."""


class ModelNotFound(ModelError):
    """There is no such model in the catalogue or on disk."""


class ModelFileError(ModelError):
    """The file is not a GGUF file that can be used: it is cut short, damaged or foreign."""


class ModelChanged(ModelFileError):
    """The file was changed or replaced while it was in use. Loading it again helps."""


class DownloadError(ModelError):
    """A download failed. What has arrived is kept, and the next try goes on from there."""


class DownloadCancelled(DownloadError):
    """A download was cancelled."""

    def __init__(self, message: str = "The download was cancelled.") -> None:
        super().__init__(message)


class PackCancelled(ModelError):
    """Packing was cancelled. What is done is kept."""

    def __init__(self, message: str = "Packing was cancelled.") -> None:
        super().__init__(message)


class DiskSpaceError(ModelError):
    """There is not enough free disk space."""


class NotFound(OndeviceError):
    """There is no such chat, memory or import."""


class FileError(OndeviceError):
    """A file of the user's cannot be read or written, or is not what it should be."""


class MemoryShortError(OndeviceError):
    """The model does not fit in the RAM that is available."""


class ContextError(OndeviceError):
    """The last message alone does not fit the context."""

    def __init__(self, message: str, tokens: int = 0) -> None:
        super().__init__(message)
        self.tokens = tokens  # of the prompt, as far as they were counted; 0: not known


class EngineError(OndeviceError):
    """The engine could not do what was asked."""


class LoadCancelled(EngineError):
    """A load was cancelled. No model is loaded."""

    def __init__(self, message: str = "Loading was cancelled.") -> None:
        super().__init__(message)


class EngineDied(EngineError):
    """The engine process ended by itself: it crashed or ran out of memory."""


class NativeError(EngineError):
    """llama.cpp refused a call."""


class StoreError(OndeviceError):
    """The private store could not be opened, read or written."""


class StoreLocked(StoreError):
    """The passphrase of the store is missing or wrong."""


class StoreUnwritable(StoreError):
    """A change could not be written: the disk is full, or another program holds the store."""


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
        NotFound,
        FileError,
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
