"""The default model with its first blocks only: real weights, real tokens, a fifth of the work."""

from __future__ import annotations

from pathlib import Path

import gguf

N_BLOCKS = 5
_OWN = ("GGUF.", "general.architecture")  # keys that the writer adds itself


def write(source: Path, target: Path) -> Path:
    """Write the first blocks of the model ``source`` to ``target``."""
    reader = gguf.GGUFReader(source)
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(target, architecture)
    for name, field in reader.fields.items():
        if not name.startswith(_OWN):
            value = N_BLOCKS if name.endswith(".block_count") else field.contents()
            sub_type = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, value, field.types[0], sub_type)
    for tensor in reader.tensors:
        if not tensor.name.startswith("blk.") or int(tensor.name.split(".")[1]) < N_BLOCKS:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target
