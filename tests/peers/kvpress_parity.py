"""Kept sets of kv-evict against kvpress 0.5.5, per layer and KV head, on a real model in float32.

    kvpress_parity.py MODEL.gguf KV_BIN [TEXT]

Both sides read the same token ids, ours from a snapshot with f32 rows. A set that differs passes if all entries in which it does have a score
within EPSILON of the cut, relative to the largest. Prints one line for each policy, length and budget, and fails if a set differs otherwise.
`make parity` makes the virtual environment that this needs: kvpress 0.5.5, gguf."""
import collections
import math
import os
import subprocess
import sys
import tempfile

import torch
from kvpress import (AdaKVPress, ChunkKVPress, ExpectedAttentionPress, KeyDiffPress, KnormPress, LagKVPress, ObservedAttentionPress,
                     PyramidKVPress, SnapKVPress, StreamingLLMPress, TOVAPress)
from transformers import AutoModelForCausalLM, DynamicCache

EPSILON = 1e-5
LENGTHS = 300, 700, 1400
SHARES = 4, 2   # budgets: a fourth and a half of the entries
VOTES = "--last 64 --pool avg:5"
WINDOW = dict(window_size=64, kernel_size=5)


def ratio_half(n, k):
    return 1 - (k + 0.5) / n    # int(n * (1 - ratio)) is k for all n and k tried; 1 - k / n is not


def ratio_chunks(n, k):
    return 1 - (k + 1e-6) / n   # int(chunks * (1 - ratio)) is chunks * k // n


def ratio_exact(n, k):
    """n * (1 - ratio) is k, for arithmetic that goes on with it and rounds halves to even."""
    ratio = 1 - k / n
    for _ in range(16):
        if n * (1 - ratio) == k:
            return ratio
        ratio = math.nextafter(ratio, 0 if n * (1 - ratio) < k else 1)
    return 1 - k / n


# name, our options, press of a ratio, the ratio, does it see the attention of the forward pass itself?
Case = collections.namedtuple("Case", "name line press ratio attention", defaults=(ratio_half, False))
CASES = [
    Case("TOVA", "--tova --protect-last 1", TOVAPress),
    Case("SnapKV", f"--snapkv {VOTES} --gqa mean", lambda r: SnapKVPress(r, **WINDOW)),
    Case("StreamingLLM", "--streaming", StreamingLLMPress),
    Case("Knorm", "--knorm", KnormPress),
    Case("KeyDiff", "--keydiff", KeyDiffPress),
    Case("ChunkKV", f"--chunkkv --base snapkv {VOTES}", lambda r: ChunkKVPress(SnapKVPress(r, **WINDOW)), ratio_chunks),
    Case("Observed", "--observed", ObservedAttentionPress, ratio_half, True),
    Case("ExpectedAttention", "--expected-attention", ExpectedAttentionPress),
    Case("PyramidKV", f"--pyramidkv --alloc kvpress {VOTES} --beta 20", lambda r: PyramidKVPress(r, **WINDOW), ratio_exact),
    Case("PyramidKV beta 2", f"--pyramidkv --alloc kvpress {VOTES} --beta 2", lambda r: PyramidKVPress(r, beta=2, **WINDOW), ratio_exact),
    Case("AdaKV", f"--adakv --alloc kvpress --alpha 0.2 {VOTES}", lambda r: AdaKVPress(SnapKVPress(r, **WINDOW))),
    Case("LagKV", "--lagkv", LagKVPress),
]


def kept_and_scores(press, module, hidden, keys, values, attention, kwargs):
    """Sets of slots for each KV head, and the score [head][slot] by which the press told them apart."""
    heads, n = keys.shape[1:3]
    if isinstance(press, AdaKVPress):
        before = module.config._attn_implementation
        module.config._attn_implementation = "sdpa"
        press.compress(module, hidden, keys, values, None, kwargs)
        module.config._attn_implementation = before
        _, head, slot = module.masked_key_indices
        module.masked_key_indices = None
        kept = [set(range(n)) - set(slot[head == h].tolist()) for h in range(heads)]
        scores = press.press.score(module, hidden, keys, values, None, kwargs)[0]
        return kept, scores
    if isinstance(press, ChunkKVPress):
        ramp = torch.arange(n, dtype=keys.dtype).view(1, 1, n, 1).expand(1, heads, n, keys.shape[3])
        _, rows = press.compress(module, hidden, keys, ramp, None, kwargs)
        kept = [set(rows[0, h, :, 0].long().tolist()) for h in range(heads)]
        base = press.press.score(module, hidden, keys, values, None, kwargs)[0].sum(0)
        mean = torch.cat([c.mean().expand(len(c)) for c in base.split(press.chunk_length)])
        return kept, mean.expand(heads, n)
    scores = press.score(module, hidden, keys, values, attention, kwargs)[0]
    k = press.get_layer_budget(module, n) if isinstance(press, PyramidKVPress) else int(n * (1 - press.compression_ratio))
    return [set(scores[h].topk(k).indices.tolist()) for h in range(heads)], scores


def peer(model, ids, budgets):
    """{(case, budget): [layer] of (kept, scores)} from one forward pass with a hook on every attention layer."""
    out = {(c.name, k): [] for c in CASES for k in budgets}

    def hook(module, args, kwargs, output):
        cache = kwargs["past_key_values"].layers[module.layer_idx]
        for c in CASES:
            for k in budgets:
                press = c.press(c.ratio(len(ids), k))
                out[c.name, k].append(kept_and_scores(press, module, kwargs["hidden_states"], cache.keys, cache.values,
                                                      output[1] if c.attention else None, kwargs))
        return output

    handles = []
    for layer in model.model.layers:
        layer.self_attn.rotary_emb = model.model.rotary_emb
        handles.append(layer.self_attn.register_forward_hook(hook, with_kwargs=True))
    with torch.no_grad():
        model.model(torch.tensor([ids]), past_key_values=DynamicCache(), use_cache=True)
    for h in handles:
        h.remove()
    return out


def tool(bin_dir, line, **how):
    words = line.split()
    return subprocess.run([os.path.join(bin_dir, words[0])] + words[1:], check=True, stdout=subprocess.PIPE, text=True, **how).stdout


def ours(bin_dir, snapshot, line, k, layers, heads):
    cut = snapshot + ".cut"
    tool(bin_dir, f"kv-evict {line} -k {k} -u -o {cut} {snapshot}")
    kept = [[set() for _ in range(heads)] for _ in range(layers)]
    for row in tool(bin_dir, f"kv-dump --tsv entries {cut}").splitlines()[1:]:
        layer, head, _, source = row.split("\t")[:4]
        kept[int(layer)][int(head)].add(int(source))
    return kept


def compare(mine, theirs):
    """Counts of sets that are equal, that differ within epsilon of the cut, that differ."""
    equal = close = other = 0
    for my, (their, scores) in zip(mine, theirs):
        finite = scores[scores.isfinite()]
        room = EPSILON * finite.abs().max().item()
        for h, (a, b) in enumerate(zip(my, their)):
            if a == b:
                equal += 1
                continue
            apart = [scores[h, i].item() for i in a ^ b]
            # Where heads share a budget what one loses another gains: the cut is that of the layer.
            pairs = [scores[g, i].item() for g in range(len(their)) for i in my[g] ^ their[g]]
            near = (len(a) == len(b) and max(apart) - min(apart) <= room) or max(pairs) - min(pairs) <= room
            close += near
            other += not near
    return equal, close, other


def main(gguf, bin_dir, text):
    model = AutoModelForCausalLM.from_pretrained(os.path.dirname(gguf), gguf_file=os.path.basename(gguf), dtype=torch.float32,
                                                 attn_implementation="eager").eval()
    layers, heads = model.config.num_hidden_layers, model.config.num_key_value_heads
    words = open(text).read().split(" ")
    bad = 0
    print("policy\ttokens\tbudget\tequal\twithin epsilon\tdiffering", flush=True)
    with tempfile.TemporaryDirectory() as d:
        for n_want in LENGTHS:
            doc, snapshot = os.path.join(d, "doc"), os.path.join(d, "s.kvs")
            with open(doc, "w") as f:
                f.write(" ".join(words[:n_want * 17 // 16]))
            tool(bin_dir, f"kv-prefill -m {gguf} --precision f32 --dtype f32 --observe acc,last={2 * n_want} -u -o {snapshot} {doc}")
            ids = [int(r.split("\t")[1]) for r in tool(bin_dir, f"kv-dump --tsv tokens {snapshot}").splitlines()[1:]]
            budgets = [len(ids) // s for s in SHARES]
            theirs = peer(model, ids, budgets)
            for c in CASES:
                for k in budgets:
                    counts = compare(ours(bin_dir, snapshot, c.line, k, layers, heads), theirs[c.name, k])
                    bad += counts[2]
                    print(c.name, len(ids), k, *counts, sep="\t", flush=True)
    sys.exit(bad > 0)


if __name__ == "__main__":
    main(os.path.abspath(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "/usr/share/common-licenses/GPL-3")
