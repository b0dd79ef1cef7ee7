"""Text -> token store -> batches. Only `prepare` writes a store; training reads it and nothing else.

Imports the ground (errors, files, progress, …) and `config`, never JAX or TensorFlow. `data.prepare` is for the verb
`prepare` alone.

    store             the token store: arrays of token ids and store.json
    batches           training batches by step, held-out windows by row
    windows           a config's training batches and held-out windows
    unique_tokens     how many different tokens a run learns from
    permutation       a shuffle of windows that is computed, not stored
    prefetch          the next batches, read in a thread
    cache             a host's own copy of a store
    vocabularies      what token ids mean: the protocols, bytes, and the vocabulary that a name stands for
    sentencepiece_bpe SentencePiece models, read and trained
    tokenizer_json    Hugging Face tokenizers
    store_vocabulary  the vocabulary of a finished store
    source_bytes      how many bytes of its text each token stands for
    segments          long texts in parts that end at lines
    prepare           text -> token store
"""
