"""Models as Hugging Face's transformers reads and writes them, without importing it or torch.

- architectures: which architecture of transformers a config fits, the fields that stand in the way, its config.json
- weights: the tensors of an architecture by name, and our parameters, each from the other
- config_values: the fields of a config from a config.json
- tensors: safetensors files
- tokenizer: the files of a vocabulary that AutoTokenizer reads
- from_sentencepiece: a SentencePiece model as a tokenizer.json
- card: the README of an exported folder
- exported: a run's newest checkpoint -> a folder that AutoModelForCausalLM.from_pretrained reads
- imported: such a folder -> the folder of a run at step 0
"""
