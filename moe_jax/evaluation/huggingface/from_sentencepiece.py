"""A SentencePiece model as a tokenizer.json, where its rules have a counterpart there.

SentencePiece's BPE merges the pair whose piece has the best score, the leftmost of equals; that of `tokenizers` the
pair of the lowest rank, so the merges of a piece have the rank of its score. Its unigram model is the same there, but
that pieces which no text may give (control, unknown, bytes) compete with the others; they get a score that loses.
"""

from typing import Any

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # types of pieces in its protocol buffer
_UNIGRAM, _BPE = 1, 2  # types of models
_SPACE = "▁"
_LOSES = -1e6
_ALL = 2**16  # spaces at the beginning of a text, at most


def convert(model: bytes) -> bytes | None:
    """The tokenizer.json; None where a rule of the model has no counterpart."""
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import AddedToken, Tokenizer

    proto = sentencepiece_model_pb2.ModelProto.FromString(model)
    unsupported = proto.trainer_spec.treat_whitespace_as_suffix or not proto.normalizer_spec.escape_whitespaces
    if unsupported or any(piece.type == UNUSED for piece in proto.pieces):
        return None
    if proto.trainer_spec.model_type == _BPE:
        made = _bpe(proto)
    elif proto.trainer_spec.model_type == _UNIGRAM:
        made = _unigram(proto)
    else:
        return None
    tokenizer = Tokenizer(made)
    if (normalizer := _normalizer(proto.normalizer_spec)) is not None:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = _decoder(proto.normalizer_spec)
    special = [p.piece for p in proto.pieces if p.type in (UNKNOWN, CONTROL)]
    tokenizer.add_special_tokens([AddedToken(piece, normalized=False, special=True) for piece in special])
    # Each is one token wherever a text has it; its spaces are spelt as a normalised text has them.
    own = [AddedToken(p.piece, normalized=True) for p in proto.pieces if p.type == USER_DEFINED]
    tokenizer.add_tokens(own)
    return tokenizer.to_str().encode()


def _bpe(proto: Any) -> Any:
    from tokenizers import models

    vocab = {piece.piece: i for i, piece in enumerate(proto.pieces)}
    score = {piece.piece: piece.score for piece in proto.pieces if piece.type == NORMAL}
    parts = score.keys() | {piece.piece for piece in proto.pieces if piece.type == USER_DEFINED}
    merges = [
        (-score[piece], i, piece[:i], piece[i:])
        for piece in score
        for i in range(1, len(piece))
        if piece[:i] in parts and piece[i:] in parts
    ]
    return models.BPE(
        vocab,
        [(left, right) for _, _, left, right in sorted(merges)],
        unk_token=proto.pieces[proto.trainer_spec.unk_id].piece,
        fuse_unk=True,
        byte_fallback=proto.trainer_spec.byte_fallback,
    )


def _unigram(proto: Any) -> Any:
    from tokenizers import models

    pieces = [(p.piece, p.score if p.type in (NORMAL, USER_DEFINED) else _LOSES) for p in proto.pieces]
    return models.Unigram(pieces, unk_id=proto.trainer_spec.unk_id, byte_fallback=proto.trainer_spec.byte_fallback)


def _normalizer(spec: Any) -> Any:
    from tokenizers import Regex, normalizers

    steps: list[Any] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        # Not Strip: it takes other white space too, which SentencePiece leaves unless its map makes it a space.
        steps += [normalizers.Replace(Regex(r"\A +"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    steps.append(normalizers.Replace(" ", _SPACE))
    if spec.remove_extra_whitespaces:  # at the end SentencePiece takes the sign of a space for one
        steps.append(normalizers.Replace(Regex(rf"{_SPACE}+\z"), ""))
    return normalizers.Sequence(steps)


def _decoder(spec: Any) -> Any:
    from tokenizers import decoders

    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    first_spaces = _ALL if spec.remove_extra_whitespaces else 1 if spec.add_dummy_prefix else 0
    return decoders.Sequence([*steps, decoders.Strip(" ", first_spaces, 0)] if first_spaces else steps)
