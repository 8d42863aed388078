"""Golden values of SmolLM2-135M-Instruct (Q4_1) from independent implementations: float32 transformers on the dequantised weights, token ids from
llama.cpp.

    make_golden.py greedy MODEL.gguf >tests/files/smollm2-greedy.tsv
    make_golden.py tova MODEL.gguf >tests/files/smollm2-tova.tsv

greedy: ids of the prompt; ids of the greedy continuation; gap between the two largest logits at each step; the eight largest logits behind the
prompt as id:value; mean NLL of the prompt's tokens from the second on.
tova: layer; source indices kept out of TOVA_TEXT at k = 64 by the mean over heads of the last token's attention (eager attention of the model
itself); difference between the last score that stays and the first that goes, relative to the former.
Needs: pip install torch transformers accelerate gguf llama-cpp-python"""
import os
import sys

import torch
from llama_cpp import Llama
from transformers import AutoModelForCausalLM

STEPS = 48
TOVA_TEXT = "/usr/share/common-licenses/BSD"
TOVA_KEEP = 64
PROMPTS = [
    "The capital of France is",
    "Once upon a time, in a village by the sea, there lived",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "1, 2, 4, 8, 16,",
    "Über die Wälder zog ein Gewitter, und",
    "東京都は日本の",
    "Q: What does a key-value cache hold?\nA:",
    "  \n\n\tWhitespace   runs,\r\nand digits 12345.678 ½ ² — then",
    open("/usr/share/common-licenses/BSD").read(),
    open("/usr/share/common-licenses/Artistic").read(),
]


def load(path, **how):
    model = AutoModelForCausalLM.from_pretrained(os.path.dirname(path), gguf_file=os.path.basename(path), dtype=torch.float32, **how)
    return model.eval()


def greedy(path, vocab):
    model = load(path)
    print("# prompt\tgreedy\tgaps\ttop8\tnll")
    for text in PROMPTS:
        ids = vocab.tokenize(text.encode(), add_bos=False, special=False)
        made, gaps = [], []
        with torch.no_grad():
            out = model(torch.tensor([ids]), use_cache=True)
            logits = out.logits[0].double()
            nll = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:])).item()
            top = logits[-1].topk(8)
            for _ in range(STEPS):
                two = out.logits[0, -1].topk(2)
                made.append(two.indices[0].item())
                gaps.append((two.values[0] - two.values[1]).item())
                out = model(torch.tensor([[made[-1]]]), past_key_values=out.past_key_values, use_cache=True)
        print("\t".join([
            " ".join(map(str, ids)), " ".join(map(str, made)), " ".join(f"{g:.4f}" for g in gaps),
            " ".join(f"{i}:{v:.4f}" for i, v in zip(top.indices.tolist(), top.values.tolist())), f"{nll:.6f}",
        ]))
        sys.stdout.flush()


def tova(path, vocab):
    model = load(path, attn_implementation="eager")
    ids = vocab.tokenize(open(TOVA_TEXT).read().encode(), add_bos=False, special=False)
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_attentions=True)
    print("# ids\t" + " ".join(map(str, ids)))
    for layer, rows in enumerate(out.attentions):
        score = rows[0, :, -1, :].double().mean(0)
        order = score.argsort(descending=True)
        gap = (score[order[TOVA_KEEP - 1]] - score[order[TOVA_KEEP]]) / score[order[TOVA_KEEP - 1]]
        print(f"{layer}\t{' '.join(map(str, sorted(order[:TOVA_KEEP].tolist())))}\t{gap:.3e}")


MODES = {"greedy": greedy, "tova": tova}
gguf = os.path.abspath(sys.argv[2])
MODES[sys.argv[1]](gguf, Llama(gguf, vocab_only=True, verbose=False))
