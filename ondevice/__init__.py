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
from ondevice.errors import OndeviceError
from ondevice.messages import (
    Chunk,
    Event,
    Finished,
    Generate,
    Load,
    Loaded,
    Notice,
    PromptProgress,
    Sampling,
    Statistics,
    Turn,
)

__all__ = [
    "Chunk",
    "Engine",
    "EngineLike",
    "Event",
    "Finished",
    "Generate",
    "Load",
    "Loaded",
    "Notice",
    "OndeviceError",
    "PromptProgress",
    "Sampling",
    "Statistics",
    "Turn",
    "__version__",
]

__version__ = "0.1.0"
