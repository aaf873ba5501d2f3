"""Metal kernels for the operations that MLX has no fast form of, and who decides whether they are
used. `launch` starts one, `hyper`, `indexer` and `attention` wrap them with the signatures of the
pure operations, `trials` says what to compare, `choose` compares and decides, `verdicts` remembers,
`machine` asks for those of this machine.
"""
