#!/usr/bin/env python3
"""Small vocabularies with odd keys, and what llama.cpp makes of them.

    VOCABULARY_ORACLE="program that asks llama.cpp" tests/make/vocabularies.py

writes tests/goldens/vocabularies/*.json, which tests/tests/vocabularies.rs compares with the engine's tokenizer. The
program is run as

    PROGRAM MODEL.gguf batch FILE ADD_SPECIAL PARSE_SPECIAL   texts of FILE, separated by zero bytes: a line of ids each
    PROGRAM MODEL.gguf eog                                    "eog: ID ID ...", then "bos ID eos ID eot ID sep ID nl ID
                                                              pad ID add_bos 0|1 add_eos 0|1 add_sep 0|1" (-1: none)
    PROGRAM MODEL.gguf attr                                   llama_token_attr of each token, on one line
    PROGRAM MODEL.gguf pieces SPECIAL                         each token's piece in hexadecimal, a line each
    PROGRAM MODEL.gguf detok REMOVE UNPARSE ID,ID,...         the text of llama_detokenize

(0 or 1 for the flags) and loads the vocabulary alone.

A vocabulary in the data is a base of its file with keys set, dropped and patched (elements of an array replaced, or added
behind its end). Texts that are no UTF-8 are {"hex": ...}.

Left out, because llama.cpp 0.5.0 ends the process, or answers by the order of a hash table:
- a text twice in the vocabulary (an assertion), BPE without the key of merges (it refuses the file, as we do);
- SPM without a token for a byte that a text needs (an uncaught exception), WordPiece or a flag that adds BOS or EOS without
  such an id (assertions), types or scores fewer than tokens (it refuses, as we do), a phi-3 name on a vocabulary
  without <s>, </s>, <unk> and <|endoftext|> (an uncaught exception);
- several texts of one list of marks, such as <PAD> and [PAD], without a key;
- Hangul in WordPiece that strips accents: llama.cpp keeps the first letter of each syllable and loses the others; letters
  that become several in lower case (U+0130);
- a normal token of byte-level BPE with characters that stand for no byte: its piece is "[UNK_BYTE_0x...]" there, its
  text here;
- special tokens that are no UTF-8 and are found inside characters: llama.cpp cuts these;
- characters that share their first bytes with a user-defined token of Unigram's: llama.cpp cuts them apart;
- glm4, and mmbert's mask: version 0.6 merges them otherwise than 0.5.0, and so do we (glm4 by `ignore_merges`);
- gpt-oss's marks in pieces: user-defined there and so shown, here no text for people."""

import json
import os
import random
import shlex
import struct
import subprocess
import tempfile

U32, I32, F32, BOOL, STRING, ARRAY, U8 = 4, 5, 6, 7, 8, 9, 0
NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
HERE = os.path.dirname(os.path.abspath(__file__))
GOLDENS = os.path.join(HERE, "..", "goldens", "vocabularies")
T = "tokenizer.ggml."


# Files


def string(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def value_bytes(kind, value):
    scalars = {"u32": ("<I", U32), "i32": ("<i", I32), "f32": ("<f", F32), "bool": ("<?", BOOL)}
    if kind in scalars:
        form, number = scalars[kind]
        return struct.pack("<I", number) + struct.pack(form, value)
    if kind == "string":
        return struct.pack("<I", STRING) + string(value)
    element = {"strings": STRING, "i32s": I32, "f32s": F32, "u8s": U8}[kind]
    items = bytes.fromhex(value) if kind == "u8s" else value
    out = struct.pack("<IIQ", ARRAY, element, len(items))
    if kind == "u8s":
        return out + items
    form = {"strings": None, "i32s": "<i", "f32s": "<f"}[kind]
    return out + b"".join(string(i) if form is None else struct.pack(form, i) for i in items)


def write(path, keys):
    with open(path, "wb") as out:
        out.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)))
        for key, (kind, value) in keys.items():
            out.write(string(key) + value_bytes(kind, value))
        out.write(b"\0" * (-out.tell() % 32))


def model_keys(architecture, extra):
    keys = {"general.architecture": ("string", architecture), "general.name": ("string", "small")}
    for name, number in [
        ("context_length", 64),
        ("embedding_length", 64),
        ("block_count", 1),
        ("attention.head_count", 2),
        ("feed_forward_length", 64),
    ]:
        keys[f"{architecture}.{name}"] = ("u32", number)
    epsilon = "layer_norm_epsilon" if architecture == "bert" else "layer_norm_rms_epsilon"
    keys[f"{architecture}.attention.{epsilon}"] = ("f32", 1e-5)
    return {**keys, **extra}


# Bases

WORDS = "hello world the token ends here don't can't I'm we're it's café naïve Ünder straße 東京 한국 tower".split()
MARKS = ["<|im_start|>", "<|im_end|>", "<mask>", "<think>", "[MASK]", "<a>", "<a><b>", "<|x|>"]
MARK_TYPES = [CONTROL, CONTROL, CONTROL, USER, CONTROL, CONTROL, CONTROL, USER]


def merge_words(words, characters):
    """Merges from the left of each word, as a trainer might have found them; texts and pairs in order."""
    texts, pairs = [], []
    for word in words:
        parts = characters(word)
        left = parts[0]
        for part in parts[1:]:
            if (left, part) not in pairs:
                pairs.append((left, part))
            left += part
            if left not in texts:
                texts.append(left)
    return texts, pairs


def spm_base():
    texts = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256
    scores = [0.0] * len(texts)
    words = ["▁" + word for word in WORDS] + ["▁▁", "▁▁▁▁", "lo", "or", "th"]
    letters = sorted({c for word in words for c in word} | set("abcdefghijklmnopqrstuvwxyz.,!?<|>_[]/"))
    merged, _ = merge_words(words, list)
    for number, text in enumerate(letters + [t for t in merged if t not in letters]):
        texts.append(text)
        types.append(NORMAL)
        scores.append(round(-0.5 * number, 2) if len(text) > 1 else -100.0 - number)
    for text, kind in zip(MARKS + ["<|endoftext|>"], MARK_TYPES + [CONTROL]):
        texts.append(text)
        types.append(kind)
        scores.append(0.0)
    return model_keys(
        "llama",
        {
            T + "model": ("string", "llama"),
            T + "tokens": ("strings", texts),
            T + "scores": ("f32s", scores),
            T + "token_type": ("i32s", types),
            T + "bos_token_id": ("u32", 1),
            T + "eos_token_id": ("u32", 2),
            T + "unknown_token_id": ("u32", 0),
        },
    )


def byte_characters():
    own = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    table = {byte: chr(byte) for byte in own}
    table.update({byte: chr(256 + number) for number, byte in enumerate(others)})
    return table


CHARACTERS = byte_characters()


def written(text):
    return "".join(CHARACTERS[byte] for byte in text.encode())


def bpe_base():
    texts = [CHARACTERS[byte] for byte in range(256)]
    words = [" " + word for word in WORDS] + WORDS + ["\n\n", "  ", "    ", "123", "12", "'s", "!!", "...", "\r\n"]
    merged, pairs = merge_words([written(word) for word in words], list)
    texts += merged
    types = [NORMAL] * len(texts)
    texts += ["<s>", "</s>", "<pad>", *MARKS]
    types += [CONTROL] * 3 + MARK_TYPES
    return model_keys(
        "llama",
        {
            T + "model": ("string", "gpt2"),
            T + "pre": ("string", "gpt-2"),
            T + "tokens": ("strings", texts),
            T + "token_type": ("i32s", types),
            T + "merges": ("strings", [f"{a} {b}" for a, b in pairs]),
            T + "bos_token_id": ("u32", texts.index("<s>")),
            T + "eos_token_id": ("u32", texts.index("</s>")),
        },
    )


def raw_base():
    """BPE on the text as it is, as Gemma 4 has it."""
    texts = ["<pad>", "</s>", "<bos>", "<unk>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    types = [CONTROL, CONTROL, CONTROL, UNKNOWN] + [BYTE] * 256
    words = ["▁" + word for word in WORDS] + WORDS + ["▁▁", "▁▁▁▁"]
    letters = sorted({c for word in words for c in word} | set("abcdefghijklmnopqrstuvwxyz.,!?<|>_[]/\n"))
    merged, pairs = merge_words(words, list)
    new = letters + [text for text in merged if text not in letters] + ["\n\n", "\n\n\n"]
    texts += new + MARKS
    types += [NORMAL] * len(new) + MARK_TYPES
    return model_keys(
        "llama",
        {
            T + "model": ("string", "gemma4"),
            T + "tokens": ("strings", texts),
            T + "token_type": ("i32s", types),
            T + "merges": ("strings", [f"{a} {b}" for a, b in pairs]),
            T + "bos_token_id": ("u32", 2),
            T + "eos_token_id": ("u32", 1),
            T + "unknown_token_id": ("u32", 3),
            T + "padding_token_id": ("u32", 0),
        },
    )


def wpm_base():
    texts = ["[PAD]"] + [f"[unused{number}]" for number in range(99)] + ["[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    types = [CONTROL] + [UNUSED] * 99 + [CONTROL] * 4
    words = "hello world the token end cafe café naive naïve under ünder strasse straße tower don t can i m it s re".split()
    words += ["Hello", "Café", "Ünder", "É", "é", "東", "京", "!", ".", ",", "?", "'", "<", ">", "|", "[", "]", "12", "$", "+"]
    for text in ["▁" + word for word in words] + ["s", "ed", "ing", "ens", "lo", "3", "é", "e", "a", "b", "á", "er"]:
        texts.append(text)
        types.append(NORMAL)
    texts += ["<a>", "<|x|>"]
    types += [CONTROL, USER]
    return model_keys(
        "bert",
        {
            T + "model": ("string", "bert"),
            T + "tokens": ("strings", texts),
            T + "token_type": ("i32s", types),
            T + "bos_token_id": ("u32", 101),
            T + "seperator_token_id": ("u32", 102),
            T + "unknown_token_id": ("u32", 100),
            T + "padding_token_id": ("u32", 0),
            T + "mask_token_id": ("u32", 103),
        },
    )


def charsmap(replacements):
    """SentencePiece's compiled table of replacements: an XOR-compressed double array, then texts that end in zero."""
    trie, texts = {}, b""
    for source, target in sorted(replacements.items()):
        node = trie
        for byte in source.encode():
            node = node.setdefault(byte, {})
        node["value"] = len(texts)
        texts += target.encode() + b"\0"
    nodes = {}
    used = {0}

    def place(node, index):
        children = {("value" if key == "value" else key): child for key, child in node.items()}
        labels = [0 if key == "value" else key for key in children]
        base = next(
            base
            for base in range(1, 1 << 20)
            if all((base ^ label) not in used for label in labels) and (base ^ index) < 1 << 21
        )
        used.update(base ^ label for label in labels)
        label, leaf = nodes.get(index, (0, 0))[0], int("value" in node)
        nodes[index] = (label, (base ^ index) << 10 | leaf << 8 | label)
        for key, child in children.items():
            if key == "value":
                nodes[base] = (0, 1 << 31 | child)
            else:
                nodes[base ^ key] = (key, key)
                place(child, base ^ key)

    place(trie, 0)
    size = (max(nodes) | 255) + 1
    array = b"".join(struct.pack("<I", nodes.get(i, (0, 0))[1] if i in nodes else 0xFF) for i in range(size))
    return (struct.pack("<I", len(array)) + array + texts).hex()


def ugm_base():
    texts = ["<s>", "<pad>", "</s>", "<unk>"]
    types = [CONTROL, CONTROL, CONTROL, UNKNOWN]
    scores = [0.0] * 4
    pieces = ["▁", "▁hello", "▁world", "▁the", "hello", "world", "▁to", "ken", "s", "▁caf", "é", "e", "▁don", "'", "t", "▁I", "m"]
    pieces += list("abcdfghijklnopqruvwxyz.,!?<>|_[]/▁".replace("▁", "")) + ["東京", "▁東", "京", "lo", "or", "▁▁", "\n", "ß", "ss", "fi"]
    for number, text in enumerate(pieces):
        texts.append(text)
        types.append(NORMAL)
        scores.append(round(-2.0 - 0.37 * (number % 17) - (4 if len(text) == 1 else 0), 2))
    texts += MARKS
    types += MARK_TYPES
    scores += [0.0] * len(MARKS)
    return model_keys(
        "bert",
        {
            T + "model": ("string", "t5"),
            T + "tokens": ("strings", texts),
            T + "scores": ("f32s", scores),
            T + "token_type": ("i32s", types),
            T + "bos_token_id": ("u32", 0),
            T + "eos_token_id": ("u32", 2),
            T + "unknown_token_id": ("u32", 3),
            T + "padding_token_id": ("u32", 1),
            T + "add_space_prefix": ("bool", True),
            T + "remove_extra_whitespaces": ("bool", True),
            T + "add_bos_token": ("bool", True),
            T + "add_eos_token": ("bool", True),
        },
    )


BASES = {"spm": spm_base(), "bpe": bpe_base(), "raw": raw_base(), "wpm": wpm_base(), "ugm": ugm_base()}


# Vocabularies


class Vocabulary:
    def __init__(self, name, base, set=(), drop=(), add=(), change=()):
        """`set`: keys without the prefix where it is the tokenizer's; `add`: tokens (text, type) behind the others, or
        (text, type, score); `change`: (index, text, type or None) of tokens."""
        self.name, self.base = name, base
        keys = BASES[base]
        full = lambda key: key if key.startswith("general.") else T + key
        self.set = {full(key): value for key, value in dict(set).items()}
        self.drop = [full(key) for key in drop]
        self.patches = {}
        number = len(keys[T + "tokens"][1])
        patch = lambda key, index, value: self.patches.setdefault(T + key, {}).__setitem__(index, value)
        for index, text, kind in change:
            if text is not None:
                patch("tokens", index, text)
            if kind is not None:
                patch("token_type", index, kind)
        for text, kind, *score in add:
            patch("tokens", number, text)
            patch("token_type", number, kind)
            if T + "scores" in keys:
                patch("scores", number, score[0] if score else 0.0)
            number += 1
        for key in list(self.patches):
            if key in self.drop or key in self.set:
                del self.patches[key]

    def keys(self):
        keys = {key: value for key, value in BASES[self.base].items() if key not in self.drop}
        for key, patch in self.patches.items():
            kind, values = keys[key]
            values = list(values)
            for index, value in sorted(patch.items()):
                values[index:index + 1] = [value]
            keys[key] = (kind, values)
        return {**keys, **self.set}


def end(base, back=0):
    """The id of the first token behind a base's, or of one further."""
    return len(BASES[base][T + "tokens"][1]) + back


def index(base, text):
    return BASES[base][T + "tokens"][1].index(text)


END_OF_TURN = "<|eot_id|> <|im_end|> <|end|> <end_of_turn> <|endoftext|> <|end_of_text|> <EOT> _<EOT> [EOT] <end_of_utterance>".split()
IDS = ["bos_token_id", "eos_token_id"]
HARMONY = [(text, CONTROL) for text in ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|return|>", "<|call|>"]]
SOLAR = [(text, CONTROL) for text in ["<|end|>", "<|calls|>", "<|flush|>"]]
PRES = (
    "default llama-bpe qwen2 gpt-2 deepseek-llm deepseek-coder deepseek-v3 falcon starcoder command-r olmo chatglm-bpe "
    "viking jais tekken smollm codeshell bloom exaone chameleon minerva-7b megrez gpt-4o superbpe trillion bailingmoe "
    "seed-coder hunyuan hunyuan-dense kimi-k2 grok-2 granite-docling minimax-m2 qwen35 youtu roberta-bpe jina-v1-en "
    "modern-bert afmoe"
).split()
u32 = lambda value: ("u32", value)
flag = lambda value: ("bool", value)
text = lambda value: ("string", value)


def vocabularies():
    make = lambda base: lambda title, **rest: Vocabulary(f"{base}: {title}", base, **rest)
    spm, bpe, raw, wpm, ugm = (make(base) for base in ["spm", "bpe", "raw", "wpm", "ugm"])
    many = [1] * (end("spm") + 7)
    yield spm("as it is")
    yield spm("no ids", drop=[*IDS, "unknown_token_id"])
    yield spm("EOS beyond the end", set={"eos_token_id": u32(end("spm"))})
    yield spm("BOS of 2^32-1", set={"bos_token_id": u32(2**32 - 1)})
    yield spm("all ids beyond the end", set={f"{k}_token_id": u32(32000) for k in "bos eos eot eom unknown seperator padding mask fim_pre fim_pad fim_rep fim_sep".split()})
    yield spm("no BOS, but EOS", set={"add_bos_token": flag(False), "add_eos_token": flag(True), "add_sep_token": flag(True)})
    yield spm("other BOS and EOS", set={"bos_token_id": u32(end("spm") - 1), "eos_token_id": u32(0), "add_eos_token": flag(True)})
    yield spm("no scores", drop=["scores"])
    yield spm("integer scores", set={"scores": ("i32s", [-(n % 50) for n in range(end("spm"))])})
    yield spm("more scores than tokens", set={"scores": ("f32s", [-(n % 31) / 4 for n in range(end("spm") + 5)])})
    yield spm("equal scores and zeros of both signs", set={"scores": ("f32s", [0.0 if n % 2 else -0.0 for n in range(end("spm"))])})
    yield spm("more types than tokens", set={"token_type": ("i32s", many)})
    yield spm("no types", drop=["token_type"])
    yield spm("no space in front", set={"add_space_prefix": flag(False)})
    for title in ["Phi-3 mini", "my PHI3 tune", "phi 3"]:
        yield spm(f"named {title}", set={"general.name": text(title)}, add=[("<|end|>", CONTROL), ("<|user|>", USER)])
    yield spm("empty texts", add=[("", NORMAL), ("", CONTROL), ("<|im_sep|>", CONTROL)])
    yield spm("types that are none", change=[(index("spm", "▁hello"), None, UNUSED), (index("spm", "▁world"), None, 0), (index("spm", "▁the"), None, 9), (index("spm", "lo"), None, -1)])
    yield spm("harmony", add=HARMONY)
    yield spm("solar", add=SOLAR)
    yield spm("half a harmony", add=HARMONY[:-1])
    yield spm("calls of one and return of the other", add=[("<|end|>", CONTROL), ("<|calls|>", NORMAL), ("<|return|>", NORMAL)])
    yield spm("Gemma's turn", add=[("<end_of_turn>", NORMAL), ("<start_of_turn>", CONTROL)], drop=["eos_token_id"])
    yield spm("</s> beside tool responses", add=[("<|tool_response>", CONTROL), ("<turn|>", NORMAL)], set={"eos_token_id": u32(end("spm", 1))})
    yield spm("</s> as EOS beside tool responses", add=[("<|tool_response>", CONTROL)])
    yield spm("holes by text", add=[("<PRE>", NORMAL), ("<SUF>", NORMAL), ("<MID>", NORMAL), ("<fim_pad>", NORMAL), ("<reponame>", NORMAL), ("<|file_sep|>", NORMAL)])
    yield spm("holes by keys", add=[("<PAD>", NORMAL), ("<REPO>", NORMAL), ("<|file_sep|>", NORMAL), ("<fim-prefix>", NORMAL)], set={"fim_pad_token_id": u32(300), "fim_rep_token_id": u32(301), "fim_sep_token_id": u32(302), "prefix_token_id": u32(303)})
    yield spm("EOT and EOM by keys", add=[("<|eot_id|>", NORMAL), ("<|eom_id|>", NORMAL)], set={"eot_token_id": u32(270), "eom_token_id": u32(271)})
    yield spm("ends by text", add=[(t, NORMAL) for t in ["<|eom_id|>", "<|end_of_text|>", "[EOS]", "<eos>", "[e~["]])
    yield spm("unused control tokens", add=[("<unused1>", CONTROL), ("<|reserved_unused|>", CONTROL), ("[unused]", NORMAL)])
    yield spm("user-defined spaces", add=[("  ", USER), ("\n\n", USER), (" end ", USER), ("\t", USER)])
    yield spm("a mask that takes the space before it", set={"pre": text("jina-v2-de")})
    yield spm("a mask by the pre, beside a name of phi-3", set={"pre": text("a jina-v2-code"), "general.name": text("phi3")})
    yield spm("modern-bert by name", set={"general.name": text("Modern-BERT-base")})
    yield spm("a token that is no UTF-8", add=[(b"\xff\xfe", NORMAL), (b"<\xff>", CONTROL)])
    for pre in PRES:
        yield bpe(f"pre {pre}", set={"pre": text(pre)})
    yield bpe("no pre", drop=["pre"])
    yield bpe("an empty pre", set={"pre": text("")})
    yield bpe("no ids", drop=IDS)
    yield bpe("no ids of chatglm", set={"pre": text("chatglm-bpe")}, drop=IDS)
    yield bpe("no ids of llama-bpe", set={"pre": text("llama-bpe")}, drop=IDS)
    yield bpe("ids beyond the end", set={"pre": text("qwen2"), "bos_token_id": u32(99999), "eos_token_id": u32(2**32 - 1), "padding_token_id": u32(end("bpe"))})
    yield bpe("BOS and EOS", set={"add_bos_token": flag(True), "add_eos_token": flag(True), "add_sep_token": flag(True)})
    merges = BASES["bpe"][T + "merges"][1]
    yield bpe("odd merges", set={"merges": ("strings", ["#version: 0.2", "", " ", "a", "h e", "a b c", "q q", "qq u", "x  y", "l lo"] + merges + ["h e", "t h", "o  r"])})
    yield bpe("merges by way of what is no token", set={"merges": ("strings", ["w o", "wo r", "h el", "el l", "e l", "ell o", "h ello", "z z", "zz z"] + merges[40:])})
    yield bpe("no merges at all", set={"merges": ("strings", [])})
    yield bpe("merges backwards", set={"merges": ("strings", merges[::-1])})
    yield bpe("kimi-k2 without merges", set={"pre": text("kimi-k2")}, drop=["merges"])
    yield bpe("bytes without tokens", change=[(ord("h"), "<h>", None), (ord(" "), "<space>", None), (0xE6, "<e6>", None)])
    yield bpe("harmony", add=HARMONY, set={"pre": text("gpt-4o")})
    yield bpe("harmony of normal tokens", add=[(t, NORMAL) for t, _ in HARMONY])
    yield bpe("solar", add=SOLAR, set={"pre": text("solar-open")})
    yield bpe("</s> beside tool responses", add=[("<|tool_response>", CONTROL)])
    yield bpe("a space in front", set={"add_space_prefix": flag(True)})
    yield bpe("user-defined spaces, as neox has them", add=[("  ", USER), ("   ", USER), ("\n\n", USER)], set={"pre": text("olmo")})
    yield bpe("modern-bert", set={"general.name": text("modern-bert"), "pre": text("modern-bert")})
    yield bpe("jina code", set={"pre": text("jina-v2-code")})
    yield bpe("named phi-3", set={"general.name": text("phi-3")}, add=[("<unk>", UNKNOWN), ("<|endoftext|>", CONTROL)])
    yield bpe("empty and odd texts", add=[("", CONTROL), ("", NORMAL), (b"\xff\xfe", USER), ("<0x0A>", BYTE), ("<0xzz>", BYTE)])
    yield bpe("types that are none", change=[(index("bpe", "Ġhello"), None, UNUSED), (index("bpe", "Ġworld"), None, 0), (index("bpe", "Ġthe"), None, -3)])
    yield raw("gemma4")
    yield raw("gemma4 that adds no BOS", set={"add_bos_token": flag(False)})
    yield raw("gemma4 without tokens of bytes", change=[(4 + b, f"<byte{b}>", NORMAL) for b in (0xE4, 0xBD, 0xA0, 0x7A, 0x71)])
    yield raw("gemma4 with tool responses", add=[("<|tool_response>", CONTROL), ("<turn|>", CONTROL), ("<eos>", CONTROL)])
    yield raw("gpt2 of pre gemma4", set={"model": text("gpt2"), "pre": text("gemma4")})
    yield raw("sarvam", set={"model": text("gpt2"), "pre": text("sarvam-moe")})
    yield raw("sarvam with BOS", set={"model": text("gpt2"), "pre": text("sarvam-moe"), "add_bos_token": flag(True)})
    yield wpm("uncased")
    yield wpm("cased", set={"normalizer.lowercase": flag(False)})
    yield wpm("cased, accents stripped", set={"normalizer.lowercase": flag(False), "normalizer.strip_accents": flag(True)})
    yield wpm("uncased, accents kept", set={"normalizer.strip_accents": flag(False)})
    yield wpm("both said", set={"normalizer.lowercase": flag(True), "normalizer.strip_accents": flag(True)})
    yield wpm("no ids", drop=["bos_token_id", "seperator_token_id", "unknown_token_id", "padding_token_id", "mask_token_id"])
    yield wpm("ids beyond the end", set={k: u32(30522) for k in ["bos_token_id", "seperator_token_id", "unknown_token_id", "padding_token_id"]})
    yield wpm("flags that say no", set={"add_bos_token": flag(False), "add_sep_token": flag(False)})
    yield wpm("EOS", set={"eos_token_id": u32(102), "add_eos_token": flag(True)})
    yield wpm("other ids", set={"bos_token_id": u32(103), "seperator_token_id": u32(104), "unknown_token_id": u32(105)})
    yield wpm("a space in front", set={"add_space_prefix": flag(True)})
    yield wpm("modern-bert by name", set={"general.name": text("modern-bert")})
    yield wpm("empty texts", add=[("", NORMAL), ("", USER)])
    yield wpm("no types", drop=["token_type"])
    for prefix in [True, False]:
        for merge in [True, False]:
            yield ugm(f"prefix {prefix}, extra spaces removed {merge}", set={"add_space_prefix": flag(prefix), "remove_extra_whitespaces": flag(merge)})
    yield ugm("flags not said", drop=["add_space_prefix", "remove_extra_whitespaces", "add_bos_token", "add_eos_token"])
    yield ugm("no ids", drop=[*IDS, "unknown_token_id", "padding_token_id"], set={"add_bos_token": flag(False)})
    yield ugm("ids beyond the end", set={k: u32(250002) for k in ["eos_token_id", "unknown_token_id", "padding_token_id"]})
    yield ugm("no scores", drop=["scores"])
    yield ugm("user-defined words", add=[("hell", USER), ("wörld", USER), ("▁tok", USER), ("ab", USER)])
    yield ugm("unused words", change=[(index("ugm", "▁hello"), None, UNUSED), (index("ugm", "world"), None, UNUSED), (index("ugm", "é"), None, 0)])
    table = {"é": "e", "ﬁ": "fi", "Ａ": "A", "\u3000": " ", "\t": " ", "\n": " ", "ｂ": "b", "ab": "x", "abc": "y", "①": "1", "…": "...", "ß": "ss", "\u200b": ""}
    yield ugm("a table of characters", set={"precompiled_charsmap": ("u8s", charsmap(table))})
    yield ugm("a table, spaces kept", set={"precompiled_charsmap": ("u8s", charsmap(table)), "remove_extra_whitespaces": flag(False)})
    yield ugm("a table and user-defined words", set={"precompiled_charsmap": ("u8s", charsmap(table))}, add=[("<|abc", USER), ("x①y", USER), ("token", USER)])
    yield ugm("a mask that takes the space before it", set={"pre": text("jina-v2-es")})
    yield ugm("empty texts", add=[("", NORMAL), ("", USER)])
    yield ugm("the unknown token is a normal one", change=[(3, None, NORMAL)])


# Texts

HAND = [
    "", " ", "  ", "\n", "\n\n", " \n ", "\t", "hello", " hello", "  hello", "hello ", "hello  ", "hello world", "hello  world",
    "Hello World", "hello\nworld", "hello\n\nworld\n", "\r\nhello\r\n", "don't can't I'm we're it's they'll", "DON'T I'M",
    "café naïve Ünder straße", "Café ÉCOLE Ärger", "cafe\u0301 E\u0301a", "東京タワー", "東京 tower", "日本語とenglish", "привет мир",
    "🙂", "a🙂b", "👩‍👩‍👧", "1234567", "12 3 456", "3.14", "x1y22", "a.b,c!d?e", "hello , world ! ok ? yes .", "it 's ' fine '",
    " ' ", "<s>", "</s>", "a</s>b", "<s>hello", " <s> hello", "<|im_start|>user\nhello<|im_end|>\n", "a <mask> b", "a\n<mask>\nb",
    "a  [MASK]  b", "[MASK].", "<think>\nhello\n</think>", "<a><b>", "<a> <b>", "<a><b", "<a<a>>", "a<|x|>b", "a <|x|> b",
    "<|end|>", "<|end|>\n<|user|>\n hello", "<|channel|>analysis<|message|>hello<|end|><|start|>assistant", "<|tool_response>",
    "<|return|><|call|>", "<|calls|><|flush|>", "<unk>", "<pad>", "[CLS] hello [SEP]", "[PAD]", "[UNK]", "<PRE>a<SUF>b<MID>",
    "zzz qqq", "qqu", "▁hello", "hello▁world", "\u3000hello\u3000", "\u00a0hello\u00a0world", "\u200bhello", "abc ab abcd", "ﬁx ﬁ ①②",
    "Ａｂ", "…", "<0x0A>", "[EMPTY_3]", "\u0000"[:0] + "tab\tend", "$12+3=x^2~|`", "(a) {b} [c]", "end end ", " end  end ",
    "straße STRASSE", "\x01\x02ctl", "A\ufffdB", "é", "hello" * 8, "_", "snake_case_words", "http://x.y/z?q=1", "#$%&*",
    "tokens token", "ended", "wörld hellish", "　", "hello\u2028world", "\u0301", "naïve\u0308", "한국 tower", "한국어",
]
PIECES = [
    "hello", " hello", "world", " world", " the", "token", "s", " ", "  ", "    ", "\n", "\n\n", "\t", ".", ",", "!", "?", "'s", " 's",
    "'", "é", "É", "ü", "e\u0301", "東京", "京", "🙂", "1", "23", "456", "<s>", "</s>", "<mask>", "[MASK]", "<|im_start|>", "<|im_end|>",
    "<think>", "<a>", "<a><b>", "<|x|>", "<|end|>", "<|", "|>", "<", ">", "A", "B", "zz", "qu", "ß", "ﬁ", "ab", "abc", "$", "_", "-", "д", "한",
    "\u00a0", "\r\n", "don't", "CAN'T", "▁",
]


def texts():
    source = random.Random(14)
    made = ["".join(source.choice(PIECES) for _ in range(source.randint(1, 9))) for _ in range(260)]
    return HAND + made


def ask(program, path, *arguments):
    done = subprocess.run([*program, path, *arguments], capture_output=True, check=True)
    return done.stdout


def as_json(value):
    if isinstance(value, bytes):
        return {"hex": value.hex()}
    return value


def main():
    program = shlex.split(os.environ["VOCABULARY_ORACLE"])
    all_texts = texts()
    hangul = lambda t: any("\uac00" <= c <= "\ud7a3" for c in t)
    files = {base: {"base": None, "vocabularies": []} for base in BASES}
    for base, keys in BASES.items():
        files[base]["base"] = [[key, kind, json_value(value)] for key, (kind, value) in keys.items()]
    with tempfile.TemporaryDirectory() as folder:
        path, batch = os.path.join(folder, "v.gguf"), os.path.join(folder, "texts")
        for number, vocabulary in enumerate(vocabularies()):
            write(path, vocabulary.keys())
            # All texts in turn.
            step = 13 if ": pre " in vocabulary.name else 8
            chosen = [n for n in range(len(all_texts)) if (n + number) % step == 0]
            if vocabulary.base == "wpm":
                chosen = [n for n in chosen if not hangul(all_texts[n])]
            with open(batch, "wb") as out:
                out.write(b"\0".join(all_texts[n].encode() for n in chosen))
            lines = lambda *rest: ask(program, path, "batch", batch, *rest).decode().split("\n")[: len(chosen)]
            ids, plain = lines("1", "1"), lines("0", "0")
            eog, special = ask(program, path, "eog").decode().strip().split("\n")
            words = special.split()
            answers = {words[n]: int(words[n + 1]) for n in range(0, len(words), 2)}
            tokens = vocabulary.keys()[T + "tokens"][1]
            named = vocabulary.keys().get(T + "eot_token_id", ("u32", len(tokens)))[1] < len(tokens)
            if not named and sum(t in tokens for t in END_OF_TURN) > 1:
                del answers["eot"]
            detokenized = []
            for at in range(0, len(chosen), 7):
                for source, removes in [(ids, "1"), (plain, "0"), (ids, "0")]:
                    if source[at]:
                        shown = ask(program, path, "detok", removes, "0", source[at].replace(" ", ","))
                        detokenized.append([source[at], removes == "1", shown.hex()])
            entry = {
                "name": vocabulary.name,
                "set": [[key, kind, json_value(value)] for key, (kind, value) in vocabulary.set.items()],
                "drop": vocabulary.drop,
                "patch": [[key, [[i, as_json(v)] for i, v in sorted(patch.items())]] for key, patch in vocabulary.patches.items()],
                "special": answers,
                "ends": [int(i) for i in eog.split()[1:]],
                "attributes": runs(ask(program, path, "attr").decode().split()),
                "pieces": changed_pieces(vocabulary, ask(program, path, "pieces", "1").decode().split("\n")),
                "texts": chosen,
                "ids": ids,
                "plain": plain,
                "detokenized": detokenized,
            }
            files[vocabulary.base]["vocabularies"].append(entry)
    os.makedirs(GOLDENS, exist_ok=True)
    save("texts", all_texts)
    for base, content in files.items():
        save(base, content)


def save(name, content):
    with open(os.path.join(GOLDENS, f"{name}.json"), "w") as out:
        if isinstance(content, list):
            json.dump(content, out, ensure_ascii=True, separators=(",", ":"))
        else:
            # A vocabulary a line.
            dump = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            out.write('{"base":' + dump(content["base"]) + ',\n"vocabularies":[\n')
            out.write(",\n".join(dump(entry) for entry in content["vocabularies"]) + "\n]}")
        out.write("\n")


def json_value(value):
    return [as_json(v) for v in value] if isinstance(value, list) else value


def runs(values):
    """[value, how often], one after another."""
    out = []
    for value in values:
        if out and out[-1][0] == int(value):
            out[-1][1] += 1
        else:
            out.append([int(value), 1])
    return out


def changed_pieces(vocabulary, pieces):
    """The pieces of every seventh token, and of those that are not the base's."""
    number = len(vocabulary.keys()[T + "tokens"][1])
    patched = vocabulary.patches.get(T + "tokens", {}).keys() | vocabulary.patches.get(T + "token_type", {}).keys()
    wanted = sorted(set(range(0, number, 7)) | set(patched))
    return [[i, pieces[i]] for i in wanted]


if __name__ == "__main__":
    main()
