"""Speed of kv-prefill and kv-decode against llama.cpp: the same file and token ids, one thread, measured in turn.

    bench_llama.py MODEL.gguf KV_BIN [--long] [--rounds N]

CPU seconds, medians; llama.cpp in process, without its start, with flash attention off and on, of which the better counts; ours as whole
programs, start and snapshot included. --long adds 2,048 and 8,192 tokens and decoding behind 4,096: many minutes, nearly all of them the peer's.
`make bench-peer` makes the virtual environment that this needs."""
import argparse
import os
import resource
import statistics
import subprocess
import tempfile
import time

import llama_cpp

DECODED = 32


def spent(who):
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def ours(*command):
    before = spent(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return spent(resource.RUSAGE_CHILDREN) - before


class Peer:
    def __init__(self, model, context, flash):
        self.llm = llama_cpp.Llama(model_path=model, n_ctx=context, n_threads=1, n_threads_batch=1, n_batch=512, n_ubatch=512,
                                   flash_attn=flash, verbose=False)

    def read(self, ids):
        self.llm.reset()
        return self.go_on(ids, 0)

    def go_on(self, ids, depth, together=True):
        self.llm.n_tokens = depth
        before = time.process_time()
        for part in [ids] if together else [[i] for i in ids]:
            self.llm.eval(part)
        return time.process_time() - before


def report(what, own, peers, tokens):
    mine, best = statistics.median(own), min(statistics.median(p) for p in peers if p)
    print(f"{what:28} ours {tokens / mine:8.1f} tokens/s   llama.cpp {tokens / best:8.1f}   ratio {best / mine:5.2f}", flush=True)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("model")
    args.add_argument("bin")
    args.add_argument("--long", action="store_true")
    args.add_argument("--rounds", type=int, default=5)
    args = args.parse_args()
    prefill, decode = os.path.join(args.bin, "kv-prefill"), os.path.join(args.bin, "kv-decode")
    lengths, depths = ([512, 2048, 8192], [16, 4096]) if args.long else ([512], [16, 512])
    ids = [3 + i * 7919 % 40000 for i in range(max(lengths + depths))]
    peers = [Peer(args.model, max(lengths + depths) + DECODED + 8, flash) for flash in (False, True)]

    print(f"llama.cpp of llama-cpp-python {llama_cpp.__version__}; medians of {args.rounds}; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        def write(n):
            path = os.path.join(folder, f"{n}.ids")
            with open(path, "w") as file:
                file.write(" ".join(map(str, ids[:n])))
            return path

        for n in lengths:
            own, theirs = [], [[], []]
            for _ in range(args.rounds):
                own.append(ours(prefill, "-m", args.model, "-@1", "-u", "--bos", "no", "--tokens", "-o", os.path.join(folder, "out.kvs"), write(n)))
                for peer, times in zip(peers, theirs):
                    times.append(peer.read(ids[:n]))
            report(f"prefill of {n}", own, theirs, n)
        for depth in depths:
            snap, own, theirs = os.path.join(folder, f"{depth}.kvs"), [], [[], []]
            ours(prefill, "-m", args.model, "-u", "--bos", "no", "--tokens", "-o", snap, write(depth))
            for peer in peers:
                peer.read(ids[:depth])
            for _ in range(args.rounds):
                few, many = (ours(decode, "-m", args.model, "-@1", "--ignore-eos", "-n", str(n), snap) for n in (1, 1 + DECODED))
                own.append(many - few)
                for peer, times in zip(peers, theirs):
                    times.append(peer.go_on(ids[:DECODED], depth, together=False))
            report(f"decoding behind {depth}", own, theirs, DECODED)


main()
