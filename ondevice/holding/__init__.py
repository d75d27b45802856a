"""The ways of holding a model: by llama.cpp in RAM, through the window, or as a stack."""
