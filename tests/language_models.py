"""A small causal language model on disk, with random weights, and a server of its answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
MERGES = [("y", "e"), ("ye", "s"), ("n", "o"), ("Ġ", "yes"), ("Ġ", "no"), ("Ġ", "A"), ("Ġ", "B")]
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte, and a few words. "Yes" is two tokens, "yes" and " yes" are one each."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["".join(pair) for pair in MERGES]
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet, *words])}
    made = Tokenizer(models.BPE(vocabulary, MERGES))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL[:3]])
    made.add_tokens([AddedToken(token, normalized=False) for token in SPECIAL[3:]])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHAT
    )


def tiny_model(directory: Path, *, seed: int = 0, positions: int = 4096) -> Path:
    """A Hugging Face directory of two layers."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer()),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=64,
        max_position_embeddings=positions,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    Qwen3ForCausalLM(config).save_pretrained(directory)
    tokenizer().save_pretrained(directory)
    return directory


class Server(ThreadingHTTPServer):
    """An OpenAI-compatible server of one model. `plan` holds what the next requests get instead.

    A plan is a status with headers, or a body; it is used up from its front.
    """

    daemon_threads = True
    request_queue_size = 128  # of 5 the rest would wait a second to connect

    def __init__(self, model: Path | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan: list[tuple[int, dict[str, str]] | bytes] = []
        self.requests: list[tuple[str, dict[str, str], dict]] = []
        self.delay_s = 0.0
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.model = Qwen3ForCausalLM.from_pretrained(model).eval() if model else None
        self.tokenizer = tokenizer()
        self.names = [self.tokenizer.decode([token]) for token in range(len(self.tokenizer))]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def top(self, text: str, n: int) -> list[tuple[str, float]]:
        """The likeliest tokens; without a model always the same."""
        if self.model is None:
            return [(" yes", -0.5), ("no", -1.0), ("Ġmaybe", -3.0)][:n]
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        with self.lock, torch.inference_mode():
            logits = self.model(torch.tensor([ids]), logits_to_keep=1).logits[0, -1]
        values, tokens = torch.log_softmax(logits, -1).topk(min(n, len(logits)))
        names = [self.names[token] for token in tokens.tolist()]
        return list(zip(names, values.tolist(), strict=True))


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.requests.append((self.path, dict(self.headers), body))
            planned = self.server.plan.pop(0) if self.server.plan else None
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        time.sleep(self.server.delay_s)
        with self.server.lock:
            self.server.now -= 1
        if isinstance(planned, tuple):
            self._send(planned[0], json.dumps({"error": body}).encode(), planned[1])
        else:
            self._send(200, planned or json.dumps(self._answer(body)).encode(), {})

    def _answer(self, body: dict) -> dict:
        if "messages" not in body:
            top = self.server.top(body["prompt"], body["logprobs"])
            first = {
                "tokens": [top[0][0]],
                "token_logprobs": [top[0][1]],
                "top_logprobs": [dict(reversed(top))],
            }
            return {"choices": [{"text": top[0][0], "logprobs": first}]}
        text = self.server.tokenizer.apply_chat_template(
            body["messages"], tokenize=False, add_generation_prompt=True
        )
        entries = [
            {"token": t, "logprob": p} for t, p in self.server.top(text, body["top_logprobs"])
        ]
        content = [{**entries[0], "top_logprobs": entries}]
        return {"choices": [{"logprobs": {"content": content}}]}

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client hung up, which is what some tests want

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(model: Path | None = None) -> Iterator[Server]:
    """A server in a thread."""
    server = Server(model)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
