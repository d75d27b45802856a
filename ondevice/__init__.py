"""ondevice: local language models sized to the RAM at hand, with a private memory.

::

    import ondevice as od

    with od.Engine() as engine:
        engine.load(od.Load(path="model.gguf"))
        for event in engine.generate(od.Generate(turns=(od.Turn("user", "Hello"),))):
            if isinstance(event, od.Chunk):
                print(event.text, end="")
"""

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
