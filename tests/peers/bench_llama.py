"""Speed of kv-prefill and kv-decode against llama.cpp: the same file and token ids, measured in turn.

    bench_llama.py MODEL.gguf KV_BIN [--prefill N …] [--depth N …] [--threads N] [--rounds N]

Medians of CPU seconds, with several threads of seconds on the clock; llama.cpp in process, without its start, with flash attention off and on,
of which the better counts; ours as whole programs, start and snapshot included. Long texts take many minutes, nearly all of them the peer's.
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


class Clock:
    """Seconds since it was made: of the processor, ours or the children's, or of the day."""

    def __init__(self, threads, who):
        self.read = time.perf_counter if threads > 1 else lambda: sum(resource.getrusage(who)[:2])
        self.begin = self.read()

    def seconds(self):
        return self.read() - self.begin


class Ours:
    def __init__(self, args, folder):
        self.args, self.folder = args, folder

    def run(self, tool, *options):
        clock = Clock(self.args.threads, resource.RUSAGE_CHILDREN)
        subprocess.run([os.path.join(self.args.bin, tool), "-m", self.args.model, f"-@{self.args.threads}", *options],
                       check=True, stdout=subprocess.DEVNULL)
        return clock.seconds()

    def read(self, ids):
        text = os.path.join(self.folder, "ids")
        with open(text, "w") as file:
            file.write(" ".join(map(str, ids)))
        return self.run("kv-prefill", "-u", "--bos", "no", "--tokens", "-o", self.snapshot(len(ids)), text)

    def snapshot(self, depth):
        return os.path.join(self.folder, f"{depth}.kvs")

    def decode(self, depth):
        few, many = (self.run("kv-decode", "--ignore-eos", "-n", str(n), self.snapshot(depth)) for n in (1, 1 + DECODED))
        return many - few


class Peer:
    def __init__(self, args, context, flash):
        self.threads, self.times = args.threads, []
        self.llm = llama_cpp.Llama(model_path=args.model, n_ctx=context, n_threads=args.threads, n_threads_batch=args.threads, n_batch=512,
                                   n_ubatch=512, flash_attn=flash, verbose=False)

    def read(self, ids):
        self.llm.reset()
        return self.go_on(ids, 0)

    def go_on(self, ids, depth, together=True):
        self.llm.n_tokens = depth
        clock = Clock(self.threads, resource.RUSAGE_SELF)
        for part in [ids] if together else [[i] for i in ids]:
            self.llm.eval(part)
        return clock.seconds()


def compare(what, tokens, rounds, ours, peers, theirs):
    """What takes the peer half as long again one way as the other is not asked for again that way."""
    own, times = [], [[] for _ in peers]
    for _ in range(rounds):
        own.append(ours())
        for peer, taken in zip(peers, times):
            if not taken or taken[0] < 1.5 * min(t[0] for t in times if t):
                taken.append(theirs(peer))
    mine, best = statistics.median(own), min(map(statistics.median, times))
    print(f"{what:28} ours {tokens / mine:8.1f} tokens/s   llama.cpp {tokens / best:8.1f}   ratio {best / mine:5.2f}", flush=True)


def main():
    args = argparse.ArgumentParser()
    args.add_argument("model")
    args.add_argument("bin")
    args.add_argument("--prefill", type=int, nargs="*", default=[512])
    args.add_argument("--depth", type=int, nargs="*", default=[16, 512])
    args.add_argument("--threads", type=int, default=1)
    args.add_argument("--rounds", type=int, default=5)
    args = args.parse_args()
    most = max(args.prefill + args.depth)
    ids = [3 + i * 7919 % 40000 for i in range(most)]
    peers = [Peer(args, most + DECODED + 8, flash) for flash in (False, True)]

    print(f"llama.cpp of llama-cpp-python {llama_cpp.__version__}; {args.threads} threads; medians of {args.rounds}; load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        ours = Ours(args, folder)
        for n in args.prefill:
            compare(f"prefill of {n}", n, args.rounds, lambda: ours.read(ids[:n]), peers, lambda peer: peer.read(ids[:n]))
        for depth in args.depth:
            for reader in [ours, *peers]:
                reader.read(ids[:depth])
            compare(f"decoding behind {depth}", DECODED, args.rounds, lambda: ours.decode(depth), peers,
                    lambda peer: peer.go_on(ids[:DECODED], depth, together=False))


main()
