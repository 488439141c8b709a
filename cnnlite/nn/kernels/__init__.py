"""Array functions without state: the arithmetic of the layers, on blocks of samples."""
