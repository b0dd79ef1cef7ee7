"""Text -> token store, in parallel and resumable: what the verb `prepare` runs; nothing else imports it.

Imports the ground and `data`. Only seqio_source, seqio_vocabulary and seqio_tasks import TensorFlow, when a seqio Task
is asked for.

    build                source and settings -> finished store
    training_vocabulary  stage 1: the vocabulary, given or trained
    pieces               stage 2: a source shard -> a file for each of the store's arrays
    assembly             stage 3: these files -> shards of the store
    workers              a function on many arguments in several processes
    sources              what a source of documents is
    corpus               source: Python's standard library
    text_files           source: files of text, JSON records and tables
    listing              the files of such a source -> its shards
    kinds                what a file holds, by its bytes and its ending
    documents            lines of a text or JSONL file -> documents
    json_values          arrays of JSON records -> documents
    tables               a column of CSV, Parquet or Arrow -> documents
    streams              lines of a plain or compressed file in bounded memory
    seqio_source         source: a seqio Task or Mixture
    seqio_vocabulary     a Task's own vocabulary
    seqio_tasks          ready Tasks, and what yours need
"""
