"""ondevice: local language models sized to the RAM at hand, with a private memory.

::

    import ondevice as od

    with od.Engine() as engine:
        engine.load(od.Load(path="model.gguf"))
        for event in engine.generate(od.Generate(turns=(od.Turn("user", "Hello"),))):
            if isinstance(event, od.Chunk):
                print(event.text, end="")
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing's own takes time to load
if TYPE_CHECKING:
    from ondevice.engine import Engine, EngineLike
    from ondevice.errors import (
        ConfigError,
        ContextError,
        DiskSpaceError,
        DownloadCancelled,
        DownloadError,
        EngineDied,
        EngineError,
        FileError,
        LoadCancelled,
        MemoryShortError,
        ModelChanged,
        ModelError,
        ModelFileError,
        ModelNotFound,
        NativeError,
        NotFound,
        OndeviceError,
        PackCancelled,
        StoreError,
        StoreLocked,
        StoreUnwritable,
        UsageError,
    )
    from ondevice.messages import (
        Aside,
        Chunk,
        Embed,
        Embedded,
        Event,
        Expected,
        Finished,
        Generate,
        Keep,
        Load,
        Loaded,
        Measure,
        Measured,
        Notice,
        PromptProgress,
        Resize,
        Sampling,
        Sizing,
        StateKey,
        Statistics,
        Streaming,
        Turn,
    )

__all__ = [
    "Aside",
    "Chunk",
    "ConfigError",
    "ContextError",
    "DiskSpaceError",
    "DownloadCancelled",
    "DownloadError",
    "Embed",
    "Embedded",
    "Engine",
    "EngineDied",
    "EngineError",
    "EngineLike",
    "Event",
    "Expected",
    "FileError",
    "Finished",
    "Generate",
    "Keep",
    "Load",
    "LoadCancelled",
    "Loaded",
    "Measure",
    "Measured",
    "MemoryShortError",
    "ModelChanged",
    "ModelError",
    "ModelFileError",
    "ModelNotFound",
    "NativeError",
    "NotFound",
    "Notice",
    "OndeviceError",
    "PackCancelled",
    "PromptProgress",
    "Resize",
    "Sampling",
    "Sizing",
    "StateKey",
    "Statistics",
    "StoreError",
    "StoreLocked",
    "StoreUnwritable",
    "Streaming",
    "Turn",
    "UsageError",
    "__version__",
]

__version__ = "0.1.0"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # for it any name would exist

    def __getattr__(name: str) -> object:
        """Loaded when it is first used: the console script loads this package before it can say
        what Ctrl+C does."""
        if name in __all__:
            for home in ("errors", "messages", "engine"):
                module = import_module(f"{__name__}.{home}")
                if hasattr(module, name):
                    return getattr(module, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}", name=name)
