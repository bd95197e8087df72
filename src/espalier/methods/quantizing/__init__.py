"""Methods whose networks show quantized weights, while they hold the real ones. One paper, one file."""
