"""Whether a model can be drafted for, or draft, told from its file before it is loaded."""

from __future__ import annotations

from ondevice.gguf._file import GGUFFile

#: llama.cpp's names of the recurrent architectures and of the hybrids: those that it keeps a state
#: for that has no middle to go back to.
_ARCHITECTURES = frozenset(
    {
        *("arwkv7", "mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7"),
        *("bailingmoe3", "deepseek4", "falcon-h1", "glm5-next", "granitehybrid", "jamba"),
        *("kimi-k3", "kimi-linear", "lfm2", "lfm2moe", "minimax-01", "nemotron_h"),
        *("nemotron_h_moe", "plamo2", "qwen35", "qwen35moe", "qwen3next", "qwen4exp"),
    }
)
#: What blocks with such a state have, for architectures that are newer than this list.
_TENSORS = (".ssm_", ".shortconv.", ".time_mix_", ".linear_attn")


def can_go_back(file: GGUFFile) -> bool:
    """Whether the last tokens of a context can be taken back, as drafts need it.

    What :attr:`ondevice.llama.Context.can_go_back` says of the loaded model.
    """
    return file.architecture not in _ARCHITECTURES and not any(
        part in name for name in file.tensors for part in _TENSORS
    )


def can_verify(file: GGUFFile) -> bool:
    """Whether a pass of several tokens can give each what it would come to alone.

    As :attr:`ondevice.llama.Context.may_verify` finds out for the loaded model: not with the
    attention that has an indexer, which chooses for several tokens what they look back on.
    """
    return can_go_back(file) and not file.hyperparameter("attention.indexer.head_count")
