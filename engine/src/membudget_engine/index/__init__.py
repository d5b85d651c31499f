"""Vectors on disk: building, publishing, opening and giving back FAISS generations. The only room faiss may enter."""
