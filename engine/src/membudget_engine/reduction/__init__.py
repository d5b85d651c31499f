"""Vectors in fewer bytes, and back: fewer places (`pca`), fewer bits a place (`quantization`)."""
