"""A chat endpoint on this machine that answers as a language model asked for text types would.

The texts are those of `texts.transforms.Rules`: what the walk needs is the protocol, not the wit.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from texts.llm import ASKED
from texts.transforms import Backend, Refused


def answer(body: dict, rules: Backend) -> str:
    """The text that a request of `texts.llm.Chat` asks for; the text itself where rules have none."""
    asked, text = body["messages"][0]["content"], body["messages"][1]["content"]
    kind = next(kind for kind, words in ASKED.items() if asked.startswith(words))
    lang = "en" if text.isascii() else "zh"
    try:
        return rules.transform(text, lang, kind).text
    except Refused:
        return text


@contextmanager
def served(rules: Backend) -> Iterator[str]:
    """The address of the endpoint, for as long as the block runs."""
    lock = threading.Lock()  # espeak keeps state of its own

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                message = {"role": "assistant", "content": answer(body, rules)}
            reply = json.dumps(
                {"choices": [{"message": message, "finish_reason": "stop"}]}
            ).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, *args: object) -> None:
            """Nothing on the terminal."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
