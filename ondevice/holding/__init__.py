"""The ways of holding a model: repacked by llama.cpp, through the window, or as a stack."""
